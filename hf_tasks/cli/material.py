"""Commands that give something to start from: recipes, sample, schema."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hf_tasks.cli.screen import console, say
from hf_tasks.errors import UserError


def list_recipes() -> None:
    """Name the recipes, each with what it is for."""
    from rich.padding import Padding
    from rich.text import Text

    from hf_tasks.recipe.gallery import recipe_names

    for name, title in recipe_names().items():
        console.print(name, markup=False)
        console.print(Padding(Text(title), (0, 0, 0, 4), expand=False))


def show_recipe(name: Annotated[str, typer.Argument(help="A name of `recipes list`.")]) -> None:
    """Print a recipe."""
    from hf_tasks.recipe.gallery import recipe_path

    typer.echo(recipe_path(name).read_text(encoding="utf-8"), nl=False)


def copy_recipe(
    name: Annotated[str, typer.Argument(help="A name of `recipes list`.")],
    target: Annotated[Path, typer.Argument(help="File or folder to write.")] = Path(),
) -> None:
    """Copy a recipe to make it yours, with the schema that editors check it by."""
    from hf_tasks.recipe.gallery import copy_recipe as copy

    say(f"written: {copy(name, target)}")


def sample(
    name: Annotated[
        str, typer.Argument(help="digits, digits-multilabel, digits-retrieval, text-pairs or text.")
    ],
    folder: Annotated[Path, typer.Argument(help="Folder to write.")],
) -> None:
    """Write a small real data set in the layout that users have."""
    from hf_tasks.data.samples import SAMPLES

    if name not in SAMPLES:
        raise UserError(f"sample: no sample '{name}'; wanted one of {', '.join(SAMPLES)}")
    SAMPLES[name](folder)
    say(f"written: {folder}")


def schema(task: Annotated[str, typer.Argument(help="Task, such as image-classification.")]) -> None:
    """Print the JSON Schema of a task's recipes, for editors."""
    from hf_tasks.recipe import recipe_schema

    typer.echo(json.dumps(recipe_schema(task), indent=2))
