"""What a model has to show in TensorBoard beside the scalars, which transformers itself writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from hf_tasks.callbacks.names import tracked_name
from hf_tasks.callbacks.wrong_pictures import load_small, select_wrong
from hf_tasks.contract.answers import (
    Answers,
    ClassificationAnswers,
    LanguageAnswers,
    PairAnswers,
    RetrievalAnswers,
)

THUMBNAIL = 160
COLUMNS = 5
MOST_CLASSES = 100
MOST_EMBEDDINGS = 10_000
BLUE, RED, INK = "#2f6db5", "#b3261e", "#202124"


def open_writer(folder: Path, *, resumed_step: int | None) -> SummaryWriter:
    """A writer of event files; steps after a checkpoint that training resumes from are forgotten.

    Args:
        folder: of the event files.
        resumed_step: step of the checkpoint; None for a training from the start.
    """
    return SummaryWriter(str(folder), purge_step=None if resumed_step is None else resumed_step + 1)


def write_answers(
    writer: SummaryWriter, answers: Answers, metrics: Mapping[str, Any], *, step: int, wrong_images: int
) -> None:
    """Write what a task's answers have to show at one step: pictures and curves, embeddings, or texts.

    Args:
        writer: of open_writer.
        answers: of the best model.
        metrics: of the best model.
        step: of the model that answered.
        wrong_images: most pictures in a grid.
    """
    match answers:
        case ClassificationAnswers():
            write_classification(writer, answers, metrics, step=step, wrong_images=wrong_images)
        case RetrievalAnswers():
            write_embeddings(writer, answers.embeddings_GD, answers.gallery_classes, step=step)
        case PairAnswers():
            write_embeddings(writer, answers.embeddings_TD, answers.texts, step=step)
        case LanguageAnswers():
            for number, (prompt, continuation) in enumerate(answers.samples):
                writer.add_text(f"samples/{number}", f"    {_one_line(prompt + ' | ' + continuation)}", step)
    writer.flush()


def write_classification(
    writer: SummaryWriter,
    answers: ClassificationAnswers,
    metrics: Mapping[str, Any],
    *,
    step: int,
    wrong_images: int,
) -> None:
    """Write wrong pictures, confusion matrix, F1 per class and precision/recall curves at one step.

    Args:
        writer: of open_writer.
        answers: of the best model.
        metrics: with `per_class`, and `confusion_matrix` for one class per picture.
        step: of the model that answered.
        wrong_images: most pictures in the grid.
    """
    names = answers.class_names[:MOST_CLASSES]
    if select_wrong(answers, limit=1):
        writer.add_figure("wrong_pictures", wrong_figure(answers, limit=wrong_images), step)
    if "confusion_matrix" in metrics and len(answers.class_names) <= MOST_CLASSES:
        counts_CC = np.array(metrics["confusion_matrix"])
        writer.add_figure("confusion_matrix", confusion_figure(counts_CC, names), step)
    f1_C = [metrics["per_class"][name]["f1"] for name in names]
    writer.add_figure("f1_per_class", f1_figure(f1_C, names), step)
    for index, name in enumerate(names):
        present_N = answers.labels[:, index] if answers.is_multilabel else answers.labels == index
        found_N = answers.probabilities_NC[:, index]
        writer.add_pr_curve(f"precision_recall/{tracked_name(name)}", present_N, found_N, step)
    writer.flush()


def write_embeddings(
    writer: SummaryWriter, embeddings_ND: np.ndarray, texts: Sequence[str], *, step: int
) -> None:
    """Write embeddings for the projector, the first 10,000 of them.

    Args:
        writer: of open_writer.
        embeddings_ND: a row an example.
        texts: what each is called, such as its class.
        step: of the model that made them.
    """
    kept = slice(MOST_EMBEDDINGS)
    writer.add_embedding(embeddings_ND[kept], [_one_line(text) for text in texts[kept]], global_step=step)
    writer.flush()


def wrong_figure(answers: ClassificationAnswers, *, limit: int) -> Figure:
    """The surest wrong pictures in a grid, what was predicted above what is true."""
    wrong = select_wrong(answers, limit=limit)
    columns = min(COLUMNS, len(wrong))
    rows = -(-len(wrong) // columns)
    figure = Figure(figsize=(1.9 * columns, 2.45 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.axis("off")
    for axis, picture in zip(axes, wrong, strict=False):
        axis.imshow(load_small(answers, picture.example, THUMBNAIL))
        _caption(axis, 15, f"{_shown(picture.predicted)}  {picture.probability:.2f}", RED)
        _caption(axis, 4, f"is {_shown(picture.true)}", INK)
    return figure


def confusion_figure(counts_CC: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Counts as numbers, shares of the true class as colour; true classes are rows."""
    classes = len(class_names)
    side = min(20.0, 2.2 + 0.42 * classes)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    shares_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares_CC, cmap="Blues", vmin=0, vmax=1)
    labels = [_short(name) for name in class_names]
    axis.set_xticks(range(classes), labels, rotation=90, fontsize=8, parse_math=False)
    axis.set_yticks(range(classes), labels, fontsize=8, parse_math=False)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    if classes <= 40:
        for row, column in zip(*np.nonzero(counts_CC), strict=True):
            colour = "white" if shares_CC[row, column] > 0.5 else INK
            count = str(counts_CC[row, column])
            axis.text(column, row, count, ha="center", va="center", fontsize=8, color=colour)
    return figure


def f1_figure(f1_C: Sequence[float], class_names: Sequence[str]) -> Figure:
    """A bar a class, the weakest on top."""
    order = np.argsort(f1_C, kind="stable")[::-1]
    figure = Figure(figsize=(6, 1 + 0.24 * len(f1_C)), layout="constrained")
    axis = figure.subplots()
    bars = axis.barh(range(len(order)), [f1_C[index] for index in order], color=BLUE)
    axis.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    axis.set_yticks(
        range(len(order)), [_short(class_names[index]) for index in order], fontsize=8, parse_math=False
    )
    axis.set_xlim(0, 1.12)
    axis.set_xlabel("F1")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _caption(axis: Axes, points_above: int, text: str, colour: str) -> None:
    axis.annotate(
        text,
        (0.5, 1),
        (0, points_above),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        fontsize=8,
        color=colour,
        parse_math=False,  # a class may be called `$x$`
    )


def _shown(names: Sequence[str]) -> str:
    return _short(" + ".join(names) or "nothing", 18)


def _short(text: str, longest: int = 24) -> str:
    line = _one_line(text)
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _one_line(text: str) -> str:
    """Without line breaks and tabs, which the projector's table is made of."""
    return " ".join(text.split()) or "-"
