"""The fields of a library's TrainingArguments, read from its source: importing it takes seconds."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, create_model


@dataclass(frozen=True)
class _Source:
    """Where a library writes its TrainingArguments and the choices that they name."""

    files: tuple[str, ...]
    class_name: str
    shown_name: str
    kept_from_parent: tuple[str, ...] = ()
    """Fields that the library writes anew without changing what transformers, if it has them, says."""


_SOURCES = {
    "transformers": _Source(
        ("training_args.py", "trainer_utils.py", "debug_utils.py"),
        "TrainingArguments",
        "transformers.TrainingArguments",
    ),
    "sentence_transformers": _Source(
        ("base/training_args.py", "base/sampler.py"),
        "BaseTrainingArguments",
        "SentenceTransformerTrainingArguments",
        kept_from_parent=("warmup_ratio",),
    ),
}
_PLAIN = {"str": str, "int": int, "float": float, "bool": bool, "dict": dict, "list": list, "Any": Any}
_NO_DEFAULT: dict[str, Any] = {
    "default_factory": lambda: None
}  # may be left out; the schema names no default
_UPLOAD = "the program does not upload while it trains; use hub, or hf-tasks push when the run has ended"

AT_LEAST = {
    "adam_beta1": 0,
    "adam_beta2": 0,
    "adam_epsilon": 0,
    "data_seed": 0,
    "dataloader_num_workers": 0,
    "gradient_accumulation_steps": 1,
    "label_smoothing_factor": 0,
    "learning_rate": 0,
    "max_grad_norm": 0,
    "num_train_epochs": 0,
    "per_device_eval_batch_size": 1,
    "per_device_train_batch_size": 1,
    "seed": 0,
    "warmup_steps": 0,
    "weight_decay": 0,
}
"""Smallest values that make sense; transformers and torch say so when all data is loaded, or never."""

AT_MOST = {"seed": 2**32 - 1}
"""Largest values; NumPy takes no larger seed."""

OWNED = {
    "output_dir": "use output",
    "overwrite_output_dir": "use another output",
    "logging_dir": "logs are written below output",
    "save_total_limit": "use checkpoints.keep_best",
    "resume_from_checkpoint": "a run is resumed by the command, see hf-tasks train --help",
    "do_train": "use the command train",
    "do_eval": "use the command evaluate",
    "do_predict": "use the command predict",
    "remove_unused_columns": "the task decides which columns its model sees",
    "batch_eval_metrics": "figures are worked out over all rows at once",
    "local_rank": "the launcher sets it, see accelerate launch --help",
    "parallelism_config": "the launcher sets it, see accelerate config",
    "push_to_hub": _UPLOAD,
    "push_to_hub_model_id": _UPLOAD,
    "push_to_hub_organization": _UPLOAD,
    "push_to_hub_token": _UPLOAD,
    "hub_model_id": _UPLOAD,
    "hub_strategy": _UPLOAD,
    "hub_token": _UPLOAD,
    "hub_private_repo": _UPLOAD,
    "hub_always_push": _UPLOAD,
    "hub_revision": _UPLOAD,
}
"""Fields that a recipe may not set, and what to do instead."""

_OWNED_PAIRS = {
    "batch_sampler": "the loss decides which rows may share a batch",
    "multi_dataset_batch_sampler": "a run trains on one data set",
    "router_mapping": "both texts of a pair go through the same encoder",
    "prompts": "the model's own default prompt is used",
}


def owned_fields(library: str) -> Mapping[str, str]:
    """Fields of a library's TrainingArguments that a recipe may not set, and what to do instead."""
    return {**OWNED, **_OWNED_PAIRS} if library == "sentence_transformers" else OWNED


@cache
def training_model(
    library: str = "transformers", folder: Path | None = None, *, left_out: frozenset[str] = frozenset()
) -> type[BaseModel]:
    """A model of `training:` with a field for each of TrainingArguments that a recipe may set.

    Names, types, choices, help and plain defaults are those of the source; types that YAML cannot write are
    `Any`. Nothing of the libraries is imported.

    Args:
        library: whose TrainingArguments: `transformers`, or `sentence_transformers`, which adds to those.
        folder: the package of the library; left out, the installed one.
        left_out: further fields that a recipe may not set.
    """
    source = _SOURCES[library]
    parent = None if library == "transformers" else training_model()
    kept = () if parent is None else {*source.kept_from_parent} & parent.model_fields.keys()
    fields = {
        name: field
        for name, field in _fields(source, folder or _installed(library)).items()
        if name not in owned_fields(library) and name not in kept and name not in left_out
    }
    base: dict[str, Any] = (
        {"__config__": ConfigDict(extra="forbid", frozen=True)} if parent is None else {"__base__": parent}
    )
    return create_model("Training", __doc__=f"Any field of {source.shown_name}.", **base, **fields)


def _fields(source: _Source, folder: Path) -> dict[str, Any]:
    trees = [ast.parse((folder / name).read_text("utf-8")) for name in source.files]
    classes = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}
    enums = {name: values for name, node in classes.items() if (values := tuple(_enum_values(node)))}
    return {
        name: _field(statement, enums)
        for statement in classes[source.class_name].body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        if not (name := statement.target.id).startswith("_")
    }


def _installed(library: str) -> Path:
    spec = find_spec(library)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _enum_values(node: ast.ClassDef) -> Iterator[str]:
    """The texts of a class like `class Strategy(ExplicitEnum): NO = "no"`; none for other classes."""
    if any(isinstance(base, ast.Name) and base.id == "ExplicitEnum" for base in node.bases):
        for statement in node.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
                yield str(statement.value.value)


def _field(statement: ast.AnnAssign, enums: Mapping[str, tuple[str, ...]]) -> tuple[Any, Any]:
    """Type and default of a line like `seed: int = field(default=42, metadata={"help": ...})`."""
    call = statement.value
    keywords = {word.arg: word.value for word in call.keywords} if isinstance(call, ast.Call) else {}
    metadata = _metadata(keywords.get("metadata"))
    members = list(_members(statement.annotation, enums))
    if isinstance(statement.target, ast.Name) and (least := AT_LEAST.get(statement.target.id)) is not None:
        bound = Field(ge=least, le=AT_MOST.get(statement.target.id))
        members = [Annotated[member, bound] if member in (int, float) else member for member in members]
    choices = metadata.get("choices")
    if choices:
        members = [member for member in members if member is not str] + [Literal[tuple(choices)]]
    if metadata.get("const") is True:
        members.append(bool)
    description = " ".join(str(metadata.get("help", "")).split()) or None
    default = keywords.get("default")
    plain_default = {"default": default.value} if isinstance(default, ast.Constant) else _NO_DEFAULT
    return Union[tuple(members)], Field(**plain_default, description=description)  # noqa: UP007


def _metadata(node: ast.expr | None) -> dict[str, Any]:
    """The entries of a metadata dict that are plain values."""
    if not isinstance(node, ast.Dict):
        return {}
    pairs = ((_literal(key), _literal(value)) for key, value in zip(node.keys, node.values, strict=True))
    return {key: value for key, value in pairs if isinstance(key, str)}


def _literal(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:  # a name or a call
        return None


def _members(node: ast.expr, enums: Mapping[str, tuple[str, ...]]) -> Iterator[Any]:
    """The types that an annotation allows, both `Optional[Union[A, B]]` and `A | B | None`."""
    members = [_member(part, enums) for part in _parts(node)]
    has_choices = any(isinstance(part, ast.Name) and part.id in enums for part in _parts(node))
    # `SchedulerType | str` means a text that names a SchedulerType.
    yield from (member for member in members if not (has_choices and member is str))


def _parts(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            yield from (*_parts(left), *_parts(right))
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=elements)):
            for element in elements:
                yield from _parts(element)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            yield from (*_parts(inner), ast.Constant(None))
        case _:
            yield node


def _member(node: ast.expr, enums: Mapping[str, tuple[str, ...]]) -> Any:
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name):
            return Literal[enums[name]] if name in enums else _PLAIN.get(name, Any)
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return list[Union[tuple(_members(item, enums))]]  # type: ignore[misc]  # noqa: UP007
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[_, item])):
            return dict[str, Union[tuple(_members(item, enums))]]  # type: ignore[misc]  # noqa: UP007
        case ast.Subscript(value=ast.Name(id="Literal")):
            return Literal[_literal(node.slice)]
        case _:
            return Any
