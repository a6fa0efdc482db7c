"""The recipes that come with the program."""

import difflib
import json
from pathlib import Path

import yaml

from hf_tasks.errors import UserError
from hf_tasks.files import write_text
from hf_tasks.recipe.load import recipe_schema

LAUNCHERS = "accelerate"
"""The folder beside the recipes that holds configurations of `accelerate launch`."""


def recipe_names() -> dict[str, str]:
    """Name of each recipe, such as `image_classification/multiclass`, and its first line."""
    folder = _folder()
    return {
        path.relative_to(folder).with_suffix("").as_posix(): _title(path)
        for path in sorted(folder.glob("*/*.yaml"))
        if path.parent.name != LAUNCHERS
    }


def recipe_path(name: str) -> Path:
    """The file of a recipe; `digits` will do for `image_classification/digits` while no other ends so.

    Raises:
        UserError: no recipe has this name.
    """
    names = list(recipe_names())
    short = name.removesuffix(".yaml").removeprefix("recipes/")
    meant = [known for known in names if short in (known, known.rpartition("/")[2])]
    if len(meant) != 1:
        near = meant or difflib.get_close_matches(short, names, n=1, cutoff=0.3)
        hint = f"; did you mean {' or '.join(repr(known) for known in near)}?" if near else ""
        raise UserError(f"recipes: no recipe '{name}'{hint} (see `hf-tasks recipes list`)")
    return _folder() / f"{meant[0]}.yaml"


def copy_recipe(name: str, target: Path) -> Path:
    """Copy a recipe and, beside it, the schema that its first line names; nothing is overwritten.

    Raises:
        UserError: no such recipe, or the target exists.
    """
    source = recipe_path(name)
    path = target / source.name if target.is_dir() or not target.suffix else target
    if path.exists():
        raise UserError(f"recipes: {path} exists already; name another file")
    text = source.read_text(encoding="utf-8")
    write_text(path, text)
    task = yaml.safe_load(text)["task"]
    write_schema(task, path.parent)
    return path


def write_schema(task: str, folder: Path) -> Path:
    """Write the schema that recipes of a task name in their first line."""
    path = folder / f"{task}.schema.json"
    write_text(path, json.dumps(recipe_schema(task), indent=2) + "\n")
    return path


def _folder() -> Path:
    """Inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def _title(path: Path) -> str:
    """The comment after the editor's line."""
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    return next((line[2:] for line in comments if "yaml-language-server" not in line), "")
