"""What a task folder provides: a value made of functions, nothing to inherit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from datasets import Dataset
from PIL import Image
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments


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


@dataclass(frozen=True)
class ClassificationAnswers:
    """A classifier's answers to N examples of C classes, as reports and trackers draw them."""

    class_names: tuple[str, ...]
    labels: np.ndarray
    """True class, int64 (N,); or 0 and 1 for each class, float32 (N, C)."""
    probabilities_NC: np.ndarray
    decisions: np.ndarray
    """Shaped like the labels, int64."""
    losses_N: np.ndarray
    paths: Sequence[str]
    """Text that people know each example by."""
    load_picture: Callable[[int], Image.Image]
    """(example) -> the picture as it was decoded, RGB, upright."""

    @property
    def is_multilabel(self) -> bool:
        """Whether an example may have several classes."""
        return self.labels.ndim == 2


@dataclass(frozen=True)
class RetrievalAnswers:
    """What Q queries find among G gallery pictures, as reports and trackers draw it; nearest first."""

    query_paths: Sequence[str]
    """Text that people know each query by."""
    gallery_paths: Sequence[str]
    query_classes: Sequence[str]
    gallery_classes: Sequence[str]
    neighbours_QK: np.ndarray
    """Gallery pictures nearest to each query, int64; -1 where there are no more."""
    distances_QK: np.ndarray
    """1 - cosine, in [0, 2]; infinite where there is no neighbour."""
    is_known_Q: np.ndarray
    """Whether the gallery has another picture of the query's class."""
    cutoff_distance: float
    """A query is refused when its nearest picture is further away."""
    embeddings_GD: np.ndarray
    """Unit vectors of the gallery, float32."""
    load_query: Callable[[int], Image.Image]
    """(query) -> the picture as it was decoded, RGB, upright."""
    load_gallery: Callable[[int], Image.Image]
    """(gallery picture) -> likewise."""


@dataclass(frozen=True)
class PairAnswers:
    """Answers to N rows of K texts, with T distinct texts in all, as reports and trackers draw them."""

    texts: Sequence[str]
    """T."""
    numbers_NK: np.ndarray
    """The number of each text of each row, int64 in [0, T); K is 2, or 3 for triplets."""
    embeddings_TD: np.ndarray
    scores_N: np.ndarray
    """Likeness of the first two texts of each row; rises with likeness."""
    labels_N: np.ndarray | None
    """0, 1 or a score between them."""
    threshold: float | None
    """Score from which a pair is called true."""
    clusters: pa.Table | None = None
    """Columns `text` and `cluster`, by cluster, -1 of texts in none; None where they were not asked for."""


@dataclass(frozen=True)
class LanguageAnswers:
    """A language model's answers to N blocks of held-out text, and what it writes."""

    losses_N: np.ndarray
    """Nats a token of each block."""
    texts: Sequence[str]
    """Of each block."""
    samples: Sequence[tuple[str, str]]
    """Beginnings of held-out documents, and what the model goes on with."""


Answers = ClassificationAnswers | RetrievalAnswers | PairAnswers | LanguageAnswers


@dataclass(frozen=True)
class Predictions:
    """What a model says of every example of a split, in the order of its rows."""

    metrics: Mapping[str, Any]
    """Numbers, and tables such as `per_class`; JSON values only."""
    table: pa.Table
    """A row an example."""
    answers: Answers
    """The same for drawing."""
    fitted: Mapping[str, Any] = field(default_factory=dict)
    """What was fitted to these rows and belongs in the model's config; JSON values only."""
    further_tables: Mapping[str, pa.Table] = field(default_factory=dict)
    """Tables beside it, such as those of one kind of mistake; a name becomes the name of a CSV file."""


@dataclass(frozen=True)
class FigureDifference:
    """A figure of two models on the same examples, with the 95 % interval of second less first."""

    first: float
    second: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two models' answers to the same N examples."""

    figures: Mapping[str, FigureDifference]
    per_class: Mapping[str, FigureDifference]
    """F1 by class name; empty for tasks without classes."""
    was_right_N: np.ndarray
    is_right_N: np.ndarray
    """Whether the first and the second answered rightly, bool (N,)."""
    outcomes: tuple[str, str] = ("fixed", "broken")
    """What an example is that only the second has right, and one that only the first has."""
    gain_N: np.ndarray | None = None
    """How much better the second is on each; None where examples are right or wrong and nothing between."""


@dataclass(frozen=True)
class ExampleColumns:
    """Columns of a task's table of predictions that tell its examples apart and show them."""

    example: tuple[str, ...] = ("path",)
    """Which example a row is; texts."""
    truth: str | None = "true"
    """What is true of it."""
    answer: str = "predicted"
    """What was said of it."""
    accepted: str | None = None
    """Whether the answer is given; None where it always is. One that is not is a refusal."""


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


Arrays = Mapping[str, np.ndarray]
"""Inputs of a network by name, the batch along the first axis."""

Network = Callable[[Arrays], np.ndarray]
"""(inputs of a batch) -> the network's output: PyTorch, or an exported file in its runtime."""


@runtime_checkable
class NetworkWithPast(Protocol):
    """A Network of causal text that keeps the keys and values of the tokens that it has read.

    Where `attention_mask` is longer than `input_ids`, the tokens go on after those of the calls before.
    """

    def __call__(self, inputs: Arrays) -> np.ndarray:
        """Logits of the tokens in `input_ids`."""

    @property
    def past_tokens(self) -> int:
        """How many tokens it has read, since the last call that started anew."""


@dataclass(frozen=True)
class PictureSteps:
    """What turns a decoded picture into a network's input, in numbers that every format can carry."""

    fit: Literal["shorter-side", "cover", "contain", "squash"]
    """Resize so that: the shorter side is that of `resize`, its box is covered, fits inside, or is filled."""
    resize: tuple[int, int]
    """(height, width), pixels."""
    crop: tuple[int, int]
    """(height, width) of the centre that is kept, pixels; what is missing is filled with the mean."""
    interpolation: str
    """nearest, bilinear, bicubic or lanczos."""
    mean: tuple[float, float, float]
    """Of red, green, blue, as shares of 255."""
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Pictures:
    """The pictures behind a plan's validation rows, and what happens before and after the network."""

    steps: PictureSteps
    load: Callable[[int], np.ndarray]
    """(validation row) -> uint8 (height, width, 3), RGB."""
    activation: Literal["softmax", "sigmoid", "none"]
    temperature: float = 1.0
    """Logits are divided by it."""
    thresholds: tuple[float, ...] | None = None
    """Probability from which each class counts as present; None where classes exclude each other."""
    answer: str = "probabilities"
    """Name of what a complete graph gives."""


@dataclass(frozen=True)
class Decisions:
    """What follows from answers: N decisions, one an example, or one for each that asks for one."""

    values: np.ndarray
    """(N, ...), compared for equality."""
    margins_N: np.ndarray
    """By how much the answer would have to change for another decision; below rounding it is a tie."""


@dataclass(frozen=True)
class ExportPlan:
    """A trained model as a task hands it over for export, with what proves an export of it."""

    model: nn.Module
    """In evaluation mode, on the CPU; called with the inputs by name."""
    inputs: Mapping[str, Tensor]
    """Example inputs by name, two examples along the first axis."""
    output: str
    """Name of the output; of a mapping or a dataclass that the model returns, this item is exported."""
    axes: Mapping[str, Mapping[int, str]]
    """Names of free axes of inputs and output, the batch among them: {"pixel_values": {0: "batch"}, ...}."""
    optimum_task: str
    """Optimum's word for what the model does, such as image-classification; one that ends in -with-past has
    Optimum's own inputs and outputs for keys and values beside those of the plan."""
    rows: int
    """Validation examples."""
    batches: Callable[[Sequence[int], int], Iterator[Arrays]]
    """(validation rows, batch size) -> their inputs, in order."""
    calibration: Callable[[int], Iterator[Arrays]]
    """(examples) -> inputs of at most so many training examples, for quantisation with fixed ranges."""
    answers: Callable[[np.ndarray, Sequence[int]], np.ndarray]
    """(output, validation rows of the batch) -> what follows from it, such as probabilities, (N, ...)."""
    decide: Callable[[np.ndarray, Sequence[int]], Decisions]
    """(answers, their validation rows) -> decisions."""
    metric: str
    """Name of the figure by which the loss of an inexact format is judged."""
    measure: Callable[[np.ndarray, Sequence[int]], float]
    """(answers, their validation rows) -> that figure."""
    lower_is_better: bool = False
    """Of the figure."""
    batch_size: int = 32
    """Examples that are compared at once; fewer where outputs are large."""
    quantization: Literal["static", "dynamic"] = "dynamic"
    """Ranges of activations: fixed by calibration, for convolutions; or found for each input, for texts."""
    size_axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Further axes that are freed when the recipe asks for a free picture size."""
    pictures: Pictures | None = None
    """Set where complete graphs, from pixels to answers, can be made."""
    labels: tuple[str, ...] = ()
    """Class of each place of the output."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Kept in the exported file: preparation, thresholds, fingerprint; JSON values only."""
    save_beside: Callable[[Path], None] = lambda folder: None
    """(folder) -> writes what libraries that load the file look for beside it."""
    write: Callable[[Network | None], Decisions] | None = None
    """(network, or None for the model) -> what it writes after some beginnings of validation texts, always
    the most probable token: values (texts, tokens) and margins of the same shape; None where the model
    writes nothing."""
    further: Mapping[str, "ExportPlan"] = field(default_factory=dict)
    """Other graphs of the same model for the same rows, proved likewise; a name becomes that of a file."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Formats that this model cannot keep, each with the reason."""


Severity = Literal["error", "warning", "note"]
"""error: training refuses it; warning: it runs, and model or figures suffer; note: worth knowing."""


@dataclass(frozen=True)
class FoundRow:
    """A row that a finding is about."""

    section: str
    """Key below `data` of the source it stands in, such as train."""
    number: int
    """From 1, in its source."""
    text: str
    """What people know it by, and what was found there."""
    is_left_out: bool = False
    """Whether a cleaned table does without it."""
    label: str | None = None
    """What a cleaned table has in place of its label."""

    def __str__(self) -> str:
        """The row as it is shown."""
        return f"{self.section} row {self.number}, {self.text}"


@dataclass(frozen=True)
class Finding:
    """Faults of one kind, told before training."""

    severity: Severity
    kind: str
    advice: str
    """The next move."""
    rows: Sequence[FoundRow] = ()
    examples: Sequence[str] = ()
    """What it is about where that is no rows: classes, lines of a message."""

    @classmethod
    def of_error(cls, error: ValueError, *, kind: str) -> "Finding":
        """What an error says; a line of its message is an example."""
        return cls("error", kind, "mend what each line names", examples=tuple(str(error).splitlines()))

    @property
    def count(self) -> int:
        """How many rows or examples there are."""
        return len(self.rows) or len(self.examples)

    def first(self, limit: int) -> list[str]:
        """The first of them, as text."""
        return [str(found) for found in (self.rows or self.examples)[:limit]]


@dataclass(frozen=True)
class SourceRows:
    """All rows of a source as a table holds them, for a cleaned copy of it."""

    rows: Dataset
    """With the columns that the recipe names, and all others."""
    looked_at: Sequence[int]
    """Places, from 0, of the rows whose pictures or texts were looked at."""
    label_column: str | None = None
    """Where a label that is written anew stands."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """What the recipe says of the written table besides its name, such as the folder of `images`."""


@dataclass(frozen=True)
class Examination:
    """What a look at the rows of a recipe found."""

    findings: Sequence[Finding]
    sources: Mapping[str, SourceRows]
    """By key below `data`; those that could not be read are missing."""


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
    example_columns: ExampleColumns = ExampleColumns()
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
