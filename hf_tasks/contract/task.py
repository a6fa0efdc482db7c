"""One kind of training: a value made of functions, nothing to inherit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import pyarrow as pa
from datasets import Dataset
from PIL import Image
from torch import nn
from transformers import Trainer, TrainingArguments

from hf_tasks.contract.answers import Comparison, ExampleColumns, Predictions
from hf_tasks.contract.examination import Examination
from hf_tasks.contract.exports import ExportPlan


class Splits(Protocol):
    """The rows of a run, prepared for one task."""

    @property
    def train(self) -> Dataset | None:
        """Rows to train on; None where a saved model is only measured."""

    @property
    def validation(self) -> Dataset:
        """Rows to measure on."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Counts, classes, fingerprint: what data.json says; JSON values only."""

    def head(self, rows: int) -> "Splits":
        """The first rows of both splits, for a trial."""


ProgressBar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""(description, total) -> a bar; what it gives is called with the number of further pictures."""


class Packed(NamedTuple):
    """What packing decoded pictures has done."""

    pictures: int
    """Different ones among the rows."""
    decoded: int
    """Of these, how many were not in the cache yet."""
    bytes: int
    """Of all packs of this way to decode, those of other data sets among them."""
    folder: Path


class Predictor(Protocol):
    """A saved model that answers for files it has never seen."""

    def __call__(self, paths: Sequence[Path], *, batch_size: int) -> Iterator[Mapping[str, Any]]:
        """One row an example, in order; the row of one that cannot be answered holds its `error`."""


@dataclass(frozen=True)
class Indexing:
    """How a task's saved model puts new examples into an index."""

    entry: str
    """What an entry is known by, and its column: `path`, or `text`."""
    file_suffixes: frozenset[str]
    """Endings of the files that are looked for in a folder."""
    load_embedder: Callable[..., Predictor]
    """(model folder[, encoding=]) -> what gives a row an example.

    It holds `path` (its file), the entry, unit `embedding`, `error`; an encoding is for files of texts.
    """
    load_cutoff: Callable[[Path], float | None]
    """(model folder) -> 1 - cosine beyond which nothing is near enough; None where the model has no such."""


@dataclass(frozen=True)
class Task:
    """One kind of training, as the workflow uses it.

    `settings` is an instance of the task's own Settings, `splits` what its `prepare` returned, the model what
    its `build_model` or `load_model` did; only the task itself looks inside them.
    """

    name: str
    arguments_class: type[TrainingArguments]
    file_suffixes: frozenset[str]
    """Endings of the files that `predict` looks for in a folder, such as `.png`."""
    training_defaults: Callable[[Any], Mapping[str, Any]]
    """(settings) -> TrainingArguments that differ from the library's defaults."""
    shown_metrics: tuple[str, ...]
    """Figures shown while training and at its end, without the prefix `eval_`."""
    open_weights: Callable[[Any], Any]
    """(settings) -> configuration and tensors; fails before any data is read."""
    prepare: Callable[[Any], Splits]
    """(settings) -> checked rows of both splits."""
    prepare_rows: Callable[[Any, Any, Any], Splits]
    """(settings, source or None for the recipe's validation, saved model) -> rows to measure it on."""
    build_model: Callable[[Any, Any, Any], Any]
    """(settings, opened weights, splits) -> the model to train."""
    load_model: Callable[[Path], Any]
    """(model folder) -> the saved model."""
    build_trainer: Callable[[Any, Any, Any, TrainingArguments, bool], Trainer]
    """(settings, model, splits, arguments, trust remote code) -> the trainer."""
    compute_predictions: Callable[[Any, Any], Predictions]
    """(trainer, splits) -> metrics and table of the validation rows."""
    load_predictor: Callable[..., Predictor]
    """(model folder[, network][, encoding=]) -> a predictor for new files.

    A given network answers for the saved one; an encoding is for files of texts.
    """
    class_figures: Callable[[Any], Mapping[str, Mapping[str, float | None]]] = lambda trainer: {}
    """(trainer) -> figures of its latest evaluation by class name; empty for tasks without classes."""
    prepare_pictures: Callable[[Any, Any, Any, ProgressBar], Mapping[str, Packed]] | None = None
    """(settings, model, splits, bar) -> what was decoded into the cache, by split; None without a cache."""
    compare_tables: Callable[[pa.Table, pa.Table], Comparison] | None = None
    """(tables of two runs, the same examples in the same order) -> how they differ; None where it cannot."""
    example_columns: ExampleColumns = field(default_factory=ExampleColumns)
    """How the rows of two such tables are matched and shown."""
    find_pictures: Callable[[Any], Callable[[str], Image.Image]] | None = None
    """(settings) -> (path as in the table) -> its picture; None where examples are no pictures."""
    plan_export: Callable[[Any, Any, Any], ExportPlan] | None = None
    """(settings, model, splits) -> how the model is exported; None where a task has no exports."""
    refused_formats: Callable[[Any], Mapping[str, str]] = lambda settings: {}
    """(settings) -> formats that its models cannot keep, each with the reason, as their plan says too."""
    exported_module: Callable[[Any], nn.Module] = lambda model: model
    """(saved model) -> the module that its plan exports."""
    indexing: Indexing | None = None
    """None where a task gives no embeddings."""
    examine: Callable[[Any, bool, int], Examination] | None = None
    """(settings, every row instead of a sample, seed of the sample) -> what is wrong with the rows."""
    examples_per_file: Literal["one", "many"] = "one"
    """Whether a file that `predict` reads is an example, as a picture is, or holds many."""
