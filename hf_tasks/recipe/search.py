"""The recipes of a search: each value of `tune.search` is checked where it would stand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_tasks.errors import RecipeError
from hf_tasks.recipe.document import dump_document, parse_document, read_recipe_text
from hf_tasks.recipe.load import load_recipe
from hf_tasks.recipe.sections import Choices, Range, Tune

NOT_SEARCHED = ("task", "output", "tune", "hub", "report", "export", "checkpoints")


def require_search(path: Path, overrides: Sequence[str], tune: Tune) -> None:
    """Check both bounds of each range, and each choice, as if the recipe said so.

    Raises:
        RecipeError: with all keys and values that a recipe cannot have.
    """
    written = parse_document(read_recipe_text(path)).lines
    problems = []
    for key, values in tune.search.items():
        line = written.get(("tune", "search", key))
        place = f"{path}{'' if line is None else f':{line}'}: tune.search"
        if key.split(".")[0] in NOT_SEARCHED:
            problems.append(f"{place}: {key} is the same for all trials; wanted a key that changes training")
            continue
        for value in _extremes(values):
            try:
                load_recipe(path, [*overrides, assignment(key, value)])
            except RecipeError as error:
                problems += [f"{place}: {problem}" for problem in error.problems]
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))


def assignment(key: str, value: Any) -> str:
    """The override that sets a key."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def trial_overrides(tune: Tune, values: Mapping[str, Any], folder: Path) -> list[str]:
    """Overrides that make a recipe that of a trial: its values, its folder, no export, no upload.

    Args:
        tune: the section of the recipe.
        values: of the searched keys.
        folder: of the trial's run.
    """
    chosen: dict[str, Any] = {"training.metric_for_best_model": tune.metric} if tune.metric else {}
    if tune.direction is not None:
        chosen["training.greater_is_better"] = tune.direction == "maximize"
    settings = {**chosen, **values, "output": str(folder), "hub": None, "export": [], "tune": None}
    return [assignment(key, value) for key, value in settings.items()]


def best_recipe_text(path: Path, overrides: Sequence[str], *, output: Path) -> str:
    """YAML of a recipe without its search, with another output; exports and upload are as they were written.

    Args:
        path: the recipe of the search.
        overrides: those of the search, then the values that won.
        output: folder of the run.
    """
    document: Any = parse_document(load_recipe(path, [*overrides, assignment("output", str(output))]).text)
    return dump_document({key: item for key, item in document.values.items() if key != "tune"})


def _extremes(values: Range | Choices) -> list[Any]:
    return values.choices if isinstance(values, Choices) else [values.low, values.high]
