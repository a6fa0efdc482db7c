"""Two finished runs side by side: recipes, figures on the same examples, what was fixed and what broke."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
from PIL import Image
from rich.console import Console

from hf_tasks.artifacts import Artifacts
from hf_tasks.contract.answers import ExampleColumns
from hf_tasks.contract.task import Task
from hf_tasks.errors import DataError, UserError
from hf_tasks.recipe import Recipe, load_recipe
from hf_tasks.recipe.document import parse_document, show_path, show_value
from hf_tasks.registry import load_task
from hf_tasks.report.comparison import RunPair, print_comparison, write_comparison

SHOWN = 3


def compare_runs(first: Path, second: Path, *, out: Path | None, console: Console) -> Path:
    """Print how the second run differs from the first, and write the same as a page with pictures.

    Args:
        first: folder of a finished run.
        second: folder of another one, with the same validation rows.
        out: page to write; None takes compared_with_FIRST.html in the second folder.
        console: where the tables are printed.

    Raises:
        UserError: a folder holds no finished run, tasks differ or cannot be compared, or the validation
            rows differ; the message says in what.
    """
    recipes = [_recipe(folder) for folder in (first, second)]
    task = _common_task(recipes, first, second)
    assert task.compare_tables is not None
    columns = task.example_columns
    before, after = (_read_table(Artifacts(folder).predictions, columns) for folder in (first, second))
    after = _aligned(before, after, columns, (first, second))
    pair = RunPair(
        first=first.resolve().name,
        second=second.resolve().name,
        task=task.name,
        recipe_differences=list(_recipe_differences(*recipes)),
        comparison=task.compare_tables(before, after),
        parts={name: _texts(before, name) for name in columns.example},
        truths=None if columns.truth is None else _texts(before, columns.truth),
        said_first=_answers(before, columns),
        said_second=_answers(after, columns),
        are_pictures=task.find_pictures is not None,
    )
    print_comparison(pair, console)
    page = out or second / f"compared_with_{pair.first}.html"
    write_comparison(page, pair, _pictures(task, recipes[1]))
    return page


def _recipe(folder: Path) -> Recipe:
    artifacts = Artifacts(folder)
    if not artifacts.recipe.is_file() or not artifacts.predictions.is_file():
        raise UserError(f"{folder}: no finished run; wanted a folder that `hf-tasks train` has written")
    return load_recipe(artifacts.recipe)


def _common_task(recipes: list[Recipe], first: Path, second: Path) -> Task:
    before, after = (recipe.task for recipe in recipes)
    if before != after:
        raise UserError(f"{first} is of the task {before}, {second} of {after}; wanted two runs of one task")
    task = load_task(before)
    if task.compare_tables is None:
        raise UserError(f"{first}: runs of the task {before} cannot be compared")
    return task


def _read_table(path: Path, columns: ExampleColumns) -> pa.Table:
    texts = [*columns.example, *([] if columns.truth is None else [columns.truth, columns.answer])]
    options = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(texts, pa.string()), strings_can_be_null=False
    )
    # A text may hold line breaks.
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    return pyarrow.csv.read_csv(path, parse_options=parsing, convert_options=options)


def _examples(table: pa.Table, columns: ExampleColumns) -> list[str]:
    """What each example is known by; several columns joined."""
    parts = [_texts(table, name) for name in columns.example]
    return [" | ".join(row) for row in zip(*parts, strict=True)]


def _texts(table: pa.Table, name: str) -> list[str]:
    if name not in table.column_names:
        return [""] * table.num_rows
    return [
        f"{value:.4g}" if isinstance(value, float) else str(value) for value in table.column(name).to_pylist()
    ]


def _answers(table: pa.Table, columns: ExampleColumns) -> list[str]:
    said = _texts(table, columns.answer)
    if columns.accepted is None:
        return said
    accepted = table.column(columns.accepted).to_pylist()
    return [text if is_given else f"{text}, refused" for text, is_given in zip(said, accepted, strict=True)]


def _aligned(
    before: pa.Table, after: pa.Table, columns: ExampleColumns, folders: tuple[Path, Path]
) -> pa.Table:
    """The second table in the order of the first.

    Raises:
        UserError: they do not hold the same examples with the same labels.
    """
    first, second = folders
    before_paths, after_paths = _examples(before, columns), _examples(after, columns)
    if before_paths != after_paths:
        _require_same_paths(before_paths, after_paths, first, second)
        places = {path: place for place, path in enumerate(after_paths)}
        after = after.take([places[path] for path in before_paths])
    if columns.truth is None:
        return after
    labels = zip(_texts(before, columns.truth), _texts(after, columns.truth), strict=True)
    relabelled = [
        f"{path}: '{old}' in {first}, '{new}' in {second}"
        for path, (old, new) in zip(before_paths, labels, strict=True)
        if old != new
    ]
    if relabelled:
        raise UserError(f"{_refusal(first, second)}: {_counted('labelled otherwise', relabelled)}")
    return after


def _require_same_paths(before: list[str], after: list[str], first: Path, second: Path) -> None:
    problems = [
        _counted(f"only in {folder}", sorted(set(these) - set(those)))
        for folder, these, those in ((first, before, after), (second, after, before))
        if set(these) - set(those)
    ]
    if not problems and (len(before) > len(set(before)) or len(after) > len(set(after))):
        problems = ["some examples come more than once, in another order or another number"]
    if problems:
        raise UserError(f"{_refusal(first, second)}: {'; '.join(problems)}")


def _refusal(first: Path, second: Path) -> str:
    return (
        f"the validation rows of {first} and {second} differ, so their figures cannot be compared; wanted "
        "two runs with the same data.validation (and, of a fraction, the same data.train and split_seed)"
    )


def _counted(kind: str, examples: list[str]) -> str:
    shown = ", ".join(examples[:SHOWN]) + (", ..." if len(examples) > SHOWN else "")
    return f"{len(examples):,} {kind} ({shown})"


def _recipe_differences(first: Recipe, second: Recipe) -> Iterator[tuple[str, str, str]]:
    """Key, value of the first and of the second, where they differ; the output folder always does."""
    before, after = (dict(_leaves(parse_document(recipe.text).values)) for recipe in (first, second))
    for key in dict.fromkeys([*before, *after]):
        if before.get(key) != after.get(key) and key != "output":
            yield key, _shown(before, key), _shown(after, key)


def _leaves(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        for key, item in values.items():
            yield from _leaves(item, (*path, key))
    else:
        yield show_path(path), values


def _shown(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "not set"
    value = values[key]
    return ", ".join(map(show_value, value)) if isinstance(value, list) else show_value(value)


def _pictures(task: Task, recipe: Recipe) -> Callable[[str], Image.Image] | None:
    if task.find_pictures is None:
        return None
    try:
        return task.find_pictures(recipe.settings)
    except DataError:
        # Figures come from the tables; without its data the page has no pictures, but all the rest.
        return None
