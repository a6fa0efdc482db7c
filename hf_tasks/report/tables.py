"""A table that sorts by the column that is clicked, with small bars and buttons that open pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from hf_tasks.report.page import render

LONG_TEXT = 60
"""Characters of a text beside which other columns find no room on a phone."""


@dataclass(frozen=True)
class Cell:
    """What a table shows, and what it sorts by."""

    text: str
    value: float | str
    bar: float | None = None
    """Length of a bar behind the text, in [0, 1]."""
    examples: Sequence[int] | None = None
    """Pictures that open on a click."""
    opens: str = ""
    """What the pictures are, above them."""
    is_wrong: bool = False
    """Whether the bar stands for mistakes."""


@dataclass(frozen=True)
class Column:
    """Name of a column, and a word on what it is."""

    name: str
    about: str = ""


def draw_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, label: str) -> Markup:
    """A sortable table, nothing without rows; `label` says what it holds to those who hear it."""
    if not rows:
        return Markup()
    kinds = [
        ("text" if isinstance(cell.value, str) else "number") + (" barred" if cell.bar is not None else "")
        for cell in rows[0]
    ]
    is_wordy = any(len(cell.text) > LONG_TEXT for row in rows for cell in row)
    headings = list(zip(columns, kinds, strict=True))
    return render("table.html", columns=headings, rows=rows, label=label, is_wordy=is_wordy)
