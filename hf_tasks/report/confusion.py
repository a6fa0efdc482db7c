"""Which classes are taken for which, where each number opens its pictures.

Legend of axes: N examples, C classes.
"""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from hf_tasks.contract.answers import ClassificationAnswers
from hf_tasks.report.captions import confidence
from hf_tasks.report.page import percent, render
from hf_tasks.report.pictures import PictureBook
from hf_tasks.report.tables import Cell, Column, draw_table

MOST_CLASSES = 25
PER_CELL = 12
PER_RIGHT_CELL = 4
MOST_MIX_UPS = 40
LONG_NAME = 4


@dataclass(frozen=True)
class MatrixCell:
    """Examples of one true class that were taken for one class."""

    count: int
    share: float
    """Of the examples of the true class."""
    is_right: bool
    title: str
    examples: list[int]


@dataclass(frozen=True)
class MatrixRow:
    """The examples of one true class."""

    name: str
    cells: list[MatrixCell]


def draw_matrix(answers: ClassificationAnswers, book: PictureBook) -> Markup:
    """The confusion matrix; of more than 25 classes those with the most mistakes."""
    counts_CC, members = _cells(answers)
    chosen = _chosen_classes(counts_CC)
    # Mistakes come first, so that they get the pictures when there is not room for all.
    pairs = [(true, said) for true in chosen for said in chosen]
    pairs.sort(key=lambda pair: (pair[0] == pair[1], -counts_CC[pair]))
    cells = {pair: _matrix_cell(answers, book, counts_CC, members, pair) for pair in pairs}
    rows = [MatrixRow(answers.class_names[true], [cells[true, said] for said in chosen]) for true in chosen]
    names = [answers.class_names[index] for index in chosen]
    return render("matrix.html", names=names, rows=rows, is_long=max(map(len, names)) > LONG_NAME)


def draw_mix_ups(answers: ClassificationAnswers, book: PictureBook) -> Markup:
    """The most frequent mistakes of one class for another, as a table; nothing where all are right."""
    counts_CC, members = _cells(answers)
    np.fill_diagonal(counts_CC, 0)
    order = np.argsort(-counts_CC, axis=None, kind="stable")[:MOST_MIX_UPS]
    pairs = [divmod(int(place), len(counts_CC)) for place in order if counts_CC.flat[place]]
    support_C = np.bincount(answers.labels, minlength=len(counts_CC))
    rows = []
    for true, said in pairs:
        count, share = int(counts_CC[true, said]), counts_CC[true, said] / support_C[true]
        names = answers.class_names[true], answers.class_names[said]
        opens = f"{names[0]} taken for {names[1]}"
        shown = book.add(members(true, said)[:PER_CELL])
        rows.append(
            [
                Cell(names[0], names[0]),
                Cell(names[1], names[1]),
                Cell(f"{count:,}", count, examples=shown, opens=_title(opens, count, shown)),
                Cell(percent(share), float(share), bar=float(share), is_wrong=True),
            ]
        )
    columns = [Column("true"), Column("taken for"), Column("pictures"), Column("of the true class")]
    return draw_table(columns, rows, label="Most frequent mistakes")


def draw_label_outcomes(answers: ClassificationAnswers, book: PictureBook) -> Markup:
    """For several labels: how often each was found, missed and seen where it is not; with the pictures."""
    present_NC, decided_NC = answers.labels.astype(bool), answers.decisions.astype(bool)
    outcomes = {
        "missed": present_NC & ~decided_NC,
        "false alarms": ~present_NC & decided_NC,
        "found": present_NC & decided_NC,
    }
    rows = []
    for index, name in enumerate(answers.class_names):
        cells = [Cell(name, name)]
        for outcome, is_so_NC in outcomes.items():
            is_right = outcome == "found"
            is_so_N = is_so_NC[:, index]
            distance_N = np.abs(answers.probabilities_NC[:, index] - present_NC[:, index])
            numbers = np.flatnonzero(is_so_N)
            numbers = numbers[np.argsort(-distance_N[numbers], kind="stable")]
            shown = book.add(numbers[: PER_RIGHT_CELL if is_right else PER_CELL])
            count = len(numbers)
            whole = max(int((present_NC if outcome != "false alarms" else ~present_NC)[:, index].sum()), 1)
            opens = _title(f"{name}: {outcome}", count, shown)
            cell = Cell(f"{count:,}", count, count / whole, shown, opens, is_wrong=not is_right)
            cells.append(cell)
        rows.append(cells)
    columns = [
        Column("label"),
        Column("missed", "there, but not predicted; the bar is the share of where it is there"),
        Column("false alarms", "predicted, but not there; the bar is the share of where it is not there"),
        Column("found", "there and predicted"),
    ]
    return draw_table(columns, rows, label="Outcomes of each label")


def _cells(answers: ClassificationAnswers) -> tuple[np.ndarray, "_Members"]:
    classes = len(answers.class_names)
    pair_N = answers.labels * classes + answers.decisions
    counts_CC = np.bincount(pair_N, minlength=classes**2).reshape(classes, classes)
    sure_N = confidence(answers)
    # Within a mistake the surest first, within a class the least sure of the right ones.
    shown_first_N = np.where(answers.labels == answers.decisions, sure_N, -sure_N)
    order_N = np.lexsort((shown_first_N, pair_N))
    return counts_CC, _Members(order_N, pair_N[order_N], classes)


@dataclass(frozen=True)
class _Members:
    order_N: np.ndarray
    sorted_pair_N: np.ndarray
    classes: int

    def __call__(self, true: int, said: int) -> np.ndarray:
        pair = true * self.classes + said
        first, last = np.searchsorted(self.sorted_pair_N, [pair, pair + 1])
        return self.order_N[first:last]


def _chosen_classes(counts_CC: np.ndarray) -> list[int]:
    classes = len(counts_CC)
    if classes <= MOST_CLASSES:
        return list(range(classes))
    mistakes_CC = counts_CC - np.diag(counts_CC.diagonal())
    mistakes_C = mistakes_CC.sum(axis=0) + mistakes_CC.sum(axis=1)
    return sorted(np.argsort(-mistakes_C, kind="stable")[:MOST_CLASSES].tolist())


def _matrix_cell(
    answers: ClassificationAnswers,
    book: PictureBook,
    counts_CC: np.ndarray,
    members: _Members,
    pair: tuple[int, int],
) -> MatrixCell:
    true, said = pair
    is_right, count = true == said, int(counts_CC[pair])
    shown = book.add(members(true, said)[: PER_RIGHT_CELL if is_right else PER_CELL])
    names = answers.class_names
    title = f"{names[true]}, rightly" if is_right else f"{names[true]} taken for {names[said]}"
    share = count / max(int(counts_CC[true].sum()), 1)
    return MatrixCell(count, share, is_right, _title(title, count, shown), shown)


def _title(what: str, count: int, shown: list[int]) -> str:
    # After a name that is written from right to left, the number would be taken into it.
    end = "" if what.isascii() else "\N{LEFT-TO-RIGHT MARK}"
    return f"{what}{end}: {count:,}" + (f", {len(shown)} shown" if len(shown) < count else "")
