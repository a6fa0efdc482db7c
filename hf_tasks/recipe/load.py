"""A recipe: one YAML file that says everything about a run; read and checked without heavy imports."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, create_model

from hf_tasks.errors import RecipeError
from hf_tasks.recipe.check import IN_QUOTES, find_problems, unknown_name
from hf_tasks.recipe.document import (
    KeyPath,
    Origin,
    Problem,
    dump_document,
    parse_document,
    read_recipe_text,
    show_path,
    show_value,
)
from hf_tasks.recipe.sections import (
    Checkpoints,
    CommonSections,
    EarlyStopping,
    Export,
    ExportFormat,
    Hub,
    Pruning,
    Report,
    Tune,
)
from hf_tasks.recipe.training_fields import owned_fields, training_model
from hf_tasks.recipe.values import MergedValues, apply_overrides, resolve_references
from hf_tasks.registry import TASKS, arguments_library, task_settings, unused_arguments


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. Relative paths in it are relative to the working directory."""

    task: str
    output: Path
    training: dict[str, Any]
    """Fields of TrainingArguments that the user set, in their own types."""
    checkpoints: Checkpoints
    early_stopping: EarlyStopping | None
    report: Report
    hub: Hub | None
    pruning: Pruning | None
    export: Export | None
    """None where nothing is exported."""
    tune: Tune | None
    settings: BaseModel
    """The sections of the task: an instance of `registry.task_settings(task)`."""
    text: str
    """YAML that is this recipe, overrides applied; what comes from the environment is not filled in."""
    path: Path


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe; torch and transformers are not imported.

    Args:
        path: a YAML file.
        overrides: texts like `training.num_train_epochs=3`; the value is YAML.

    Raises:
        RecipeError: with all mistakes at once, each with file, line and key.
    """
    path = Path(path)
    document = parse_document(read_recipe_text(path))
    if not isinstance(document.values, dict):
        wanted = f"found {show_value(document.values)}, wanted sections such as `task: {next(iter(TASKS))}`"
        problems = document.problems or [Problem((), wanted)]
        raise RecipeError([_line(path, problem, problem.origin or Origin()) for problem in problems])
    merged = apply_overrides(document, overrides)
    values, dangling = resolve_references(merged.written)
    problems = [*merged.problems, *dangling, *_schema_problems(values, merged)]
    try:
        settings, common, training = _sections(values)
    except ValidationError as errors:
        problems += _validation_problems(errors, values, only_validators=bool(problems))
    if problems:
        raise RecipeError(_sorted_lines(path, problems, merged))
    return Recipe(
        task=values["task"],
        output=Path(common.output),
        training=training.model_dump(exclude_unset=True),
        checkpoints=common.checkpoints,
        early_stopping=common.early_stopping,
        report=common.report,
        hub=common.hub,
        pruning=common.pruning,
        export=_export(common.export),
        tune=common.tune,
        settings=settings,
        text=dump_document(merged.written),
        path=path,
    )


def recipe_schema(task: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a whole recipe: common sections, `training`, and those of the task.

    Raises:
        RecipeError: there is no such task.
    """
    if task not in TASKS:
        raise RecipeError([f"task: {unknown_name(task, list(TASKS))}"])
    schema = _schema(task)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": f"Recipe: {task}"}


@cache
def _schema(task: str) -> Mapping[str, Any]:
    return _recipe_model(task).model_json_schema()


def _recipe_model(task: str) -> type[BaseModel]:
    fields: dict[str, Any] = {
        "task": (Literal[task], Field(description="What is trained.")),
        "training": (
            _training_model(task) | None,
            Field(None, description="How it is trained."),
        ),
    }
    bases = (task_settings(task), CommonSections)
    return create_model("Recipe", __base__=bases, __doc__="A recipe of hf_tasks.", **fields)


def _training_model(task: str) -> type[BaseModel]:
    return training_model(arguments_library(task), left_out=frozenset(unused_arguments(task)))


def _task(values: Mapping[str, Any]) -> str | None:
    """The task that a recipe names, if there is such a task."""
    task = values.get("task")
    return task if isinstance(task, str) and task in TASKS else None


def _schema_problems(values: Mapping[str, Any], merged: MergedValues) -> list[Problem]:
    """Problems of all sections; of the common ones only, where the task is not known."""
    task = _task(values)
    schema = recipe_schema(task or next(iter(TASKS)))
    if task is None:
        properties = {key: schema["properties"][key] for key in CommonSections.model_fields}
        properties["task"] = {"enum": list(TASKS), "description": "What is trained."}
        schema |= {"properties": properties, "required": ["task", "output"], "additionalProperties": True}
    known = task or next(iter(TASKS))
    fields = {**owned_fields(arguments_library(known)), **unused_arguments(known)}
    owned: dict[KeyPath, str] = {("training", name): instead for name, instead in fields.items()}
    return find_problems(schema, values, written=merged.written, owned=owned)


def _sections(values: Mapping[str, Any]) -> tuple[BaseModel, CommonSections, BaseModel]:
    """The task's settings, the common sections and `training`; the settings are checked first."""
    task = _task(values) or next(iter(TASKS))
    settings_model = task_settings(task)
    settings = {key: item for key, item in values.items() if key in settings_model.model_fields}
    common = {key: item for key, item in values.items() if key in CommonSections.model_fields}
    return (
        settings_model.model_validate(settings),
        CommonSections.model_validate(common),
        _training_model(task).model_validate(values.get("training") or {}),
    )


def _export(section: list[ExportFormat] | Export) -> Export | None:
    """The section as a mapping; a plain list names the formats."""
    if isinstance(section, Export):
        return section
    return Export(formats=section) if section else None


def _validation_problems(
    errors: ValidationError, values: Mapping[str, Any], *, only_validators: bool
) -> Iterator[Problem]:
    """What pydantic says beyond the schema: of two sections that do not fit together, for instance.

    A validator may open its message with the key that it is about, `loss.name: does not fit ...`.
    """
    for error in errors.errors():
        if only_validators and error["type"] != "value_error":
            continue
        text = str(error.get("ctx", {}).get("error", error["msg"]))
        key, colon, rest = text.partition(": ")
        is_key = bool(colon) and " " not in key
        yield Problem(tuple(key.split(".")), rest) if is_key else Problem(_known(error["loc"], values), text)


def _known(location: KeyPath, values: Any) -> KeyPath:
    """The keys of a recipe in a location of pydantic, which also holds names of types."""
    path: list[str | int] = []
    for key in location:
        if isinstance(values, dict) and key in values:
            path.append(key)
            values = values[key]
    return tuple(path)


def _sorted_lines(path: Path, problems: Sequence[Problem], merged: MergedValues) -> list[str]:
    """One line a problem, in the order of the file; overrides last."""
    placed = [(problem.origin or merged.origin(problem.path), problem) for problem in problems]
    placed.sort(key=lambda pair: pair[0])
    return list(dict.fromkeys(_line(path, problem, origin) for origin, problem in placed))


def _line(path: Path, problem: Problem, origin: Origin) -> str:
    place = f"override {origin.override!r}" if origin.override else f"{path}:{origin.line}"
    if origin == Origin():
        place = str(path)
    text = problem.text
    key, _, value = origin.override.partition("=")
    if value.isalnum() and text.endswith(IN_QUOTES):
        text += f", and those in others, which the shell takes away: '{key}=\"{value}\"'"
    return ": ".join(part for part in (place, show_path(problem.path), text) if part)
