"""What a model says of the examples of a split, as tables, reports and trackers take it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image


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
    """A figure of two models on the same examples, with the 95 % interval of second less first.

    The ends are NaN where the examples are too few to tell.
    """

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
