"""A trained model as a task hands it over for export, with what proves an export of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

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
