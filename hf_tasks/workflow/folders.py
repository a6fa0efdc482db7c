"""What can be said of a run's folder before anything heavy is imported."""

import os
import shlex
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hf_tasks.artifacts import Artifacts, read_json
from hf_tasks.errors import RecipeError, UserError
from hf_tasks.recipe.sections import Export

TABLE_ENDINGS = (".csv", ".jsonl", ".parquet")


def require_output(folder: Path, *, may_exist: bool) -> None:
    """Check that a run can be written into a folder.

    Raises:
        RecipeError: it holds a run that may not be touched, or other files.
        UserError: nothing can be written there.
    """
    require_writable(folder, key="output")
    if Artifacts(folder).recipe.is_file():
        if not may_exist:
            raise RecipeError(
                [
                    f"output: {folder} already holds a run; continue it with --resume, replace it "
                    "with --overwrite, or name another folder: output=runs/NAME"
                ]
            )
    # A run that was refused before its first step leaves empty folders.
    elif any(not path.is_dir() for path in folder.rglob("*")):
        raise RecipeError([f"output: {folder} is not empty and holds no run; name another folder"])


def require_same_place(recipe: Path, output: Path) -> None:
    """Check that a run that was moved is not begun anew, where it lay before, by who means to resume it.

    Args:
        recipe: file that was named.
        output: folder that it names.

    Raises:
        RecipeError: the recipe stands in a run's folder, and its output is another one, without a run.
    """
    beside = Artifacts(recipe.parent)
    if beside.recipe == recipe and beside.checkpoints.is_dir() and not Artifacts(output).recipe.is_file():
        moved = shlex.quote(f"output={beside.folder}")
        raise RecipeError(
            [f"output: {output} holds no run to resume; the one beside {recipe} goes on with {moved}"]
        )


def require_writable(folder: Path, *, key: str) -> None:
    """Check that a folder can be made or be written to; nothing is made yet.

    Args:
        folder: that files are to stand in.
        key: recipe key or option that names it, for the message.

    Raises:
        UserError: part of the path is a file, or the system lets this user write nothing there, or not under
            this name.
    """
    whole = folder.absolute()
    place = next(place for place in (whole, *whole.parents) if os.path.lexists(place))
    if not place.is_dir():
        raise UserError(f"{key}: {place} is a file, wanted a folder; name another place")
    try:
        # Rights alone do not tell: the system lets root write into /proc, and to a disk that is read-only.
        with tempfile.TemporaryFile(dir=place):
            pass
        for name in whole.relative_to(place).parts:
            with suppress(FileNotFoundError):
                os.lstat(place / name)
    except OSError as error:
        raise UserError(
            f"{key}: {folder} cannot be written ({error.strerror}); "
            "name another place, or see who may write there"
        ) from None


def require_finished(folder: Path) -> None:
    """Check that a folder holds a finished run.

    Raises:
        UserError: it does not.
    """
    artifacts = Artifacts(folder)
    if not artifacts.recipe.is_file() or not artifacts.model.is_dir():
        raise UserError(f"{folder}: no finished run; wanted a folder that `hf-tasks train` has written")


def require_exportable(folder: Path, formats: Sequence[str], *, backend: str | None) -> None:
    """Check that a folder holds a finished run, and that formats and backend are known; all told together.

    Raises:
        UserError: they are not.
    """
    asked = {"formats": list(formats) or ["onnx"], "backend": backend or "auto"}
    lines = []
    try:
        Export.model_validate(asked)
    except ValidationError as errors:
        lines = [
            f"export: found {error['input']!r}, wanted {error['msg'].removeprefix('Input should be ')}"
            for error in errors.errors()
        ]
    try:
        require_finished(folder)
    except UserError as error:
        lines.append(str(error))
    if lines:
        raise UserError("\n".join(lines))


def require_inputs(paths: Iterable[Path]) -> None:
    """Check that files or folders are there.

    Raises:
        UserError: names all that are not.
    """
    missing = [f"{path}: no such file or folder" for path in paths if not path.exists()]
    if missing:
        raise UserError("\n".join(missing))


def require_table_ending(out: Path) -> None:
    """Check that answers can be written to a file of this name.

    Raises:
        UserError: another ending, or nothing can be written there.
    """
    if out.suffix.lower() not in TABLE_ENDINGS:
        raise UserError(f"--out: {out} ends in '{out.suffix}'; wanted one of {', '.join(TABLE_ENDINGS)}")
    if out.is_dir():
        raise UserError(f"--out: {out} is a folder; name a file")
    require_writable(out.parent, key="--out")


def finished_as_it_is(
    folder: Path, text: str, *, training: Mapping[str, Any], is_exported: bool
) -> str | None:
    """What to tell who resumes a run of this recipe that is finished; None where something is left to do.

    Args:
        folder: of the run.
        text: of the recipe that would go on, overrides applied.
        training: its section of that name.
        is_exported: whether the recipe asks for exports.
    """
    artifacts = Artifacts(folder)
    done = (artifacts.recipe, artifacts.metrics, artifacts.predictions, artifacts.report, artifacts.card)
    if not all(path.is_file() for path in done) or artifacts.recipe.read_text(encoding="utf-8") != text:
        return None
    if is_exported and not read_json(artifacts.parity).get("formats"):
        return None
    trained = read_json(artifacts.metrics)["training"]
    longer = f"num_train_epochs={2 * max(1, round(trained['epochs'] or 0))}"
    if "max_steps" in training:
        longer = f"max_steps={2 * trained['steps']}"
    recipe = shlex.quote(str(artifacts.recipe))
    return (
        f"{folder} is finished already: nothing to do. To train further, plan more of it: "
        f"hf-tasks train {recipe} --resume training.{longer}"
    )
