"""Two runs on the same examples, as tables for a terminal of 80 columns and as a page with pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from hf_tasks.contract.answers import Comparison, FigureDifference
from hf_tasks.errors import DataError
from hf_tasks.report.captions import Caption, Chip
from hf_tasks.report.names import described
from hf_tasks.report.page import Note, Section, Verdict, figure, render, write_page
from hf_tasks.report.pictures import PictureBook
from hf_tasks.report.tables import Cell, Column, draw_table

WIDTH = 80
MOST_LINES = 8
MOST_PICTURES = 60
LONGEST_TEXT = 400
LOWER_IS_BETTER = frozenset({"loss", "perplexity", "bits_per_byte"})


@dataclass(frozen=True)
class RunPair:
    """Two runs whose validation rows are the same, as plain values; N examples."""

    first: str
    second: str
    task: str
    recipe_differences: Sequence[tuple[str, str, str]]
    """Key, value of the first, value of the second."""
    comparison: Comparison
    parts: Mapping[str, Sequence[str]]
    """What each example is known by, by the name of a column: its path, or its texts."""
    truths: Sequence[str] | None
    """None where nothing is true or false, as of plain text."""
    said_first: Sequence[str]
    said_second: Sequence[str]
    are_pictures: bool = True

    @cached_property
    def examples(self) -> list[str]:
        """What each example is known by, in one text."""
        return [" | ".join(parts) for parts in zip(*self.parts.values(), strict=True)]

    def fixed(self) -> list[int]:
        """Examples that only the second run has right, those that gained most first."""
        return self._chosen(~self.comparison.was_right_N & self.comparison.is_right_N, direction=-1)

    def broken(self) -> list[int]:
        """Examples that only the first run has right, those that lost most first."""
        return self._chosen(self.comparison.was_right_N & ~self.comparison.is_right_N, direction=1)

    def _chosen(self, is_chosen_N: np.ndarray, *, direction: int) -> list[int]:
        chosen, gain_N = np.flatnonzero(is_chosen_N), self.comparison.gain_N
        if gain_N is not None:
            chosen = chosen[np.argsort(direction * gain_N[chosen], kind="stable")]
        return chosen.tolist()


def print_comparison(pair: RunPair, console: Console) -> None:
    """Print all of it within 80 columns."""
    width = min(WIDTH, console.width)
    first, second = escape(pair.first), escape(pair.second)
    recipe = Table("recipe", first, second, title_justify="left")
    for row in pair.recipe_differences:
        recipe.add_row(*(Text(text) for text in row))
    console.print(recipe if pair.recipe_differences else "The recipes say the same.", width=width)
    figures = Table("figure", first, second, "difference", "95 % interval")
    for name, found in pair.comparison.figures.items():
        texts = (figure(found.first), figure(found.second), _signed(found.second - found.first))
        figures.add_row(Text(name), *texts, _interval(found))
    console.print(figures, width=width)
    for what, numbers in zip(pair.comparison.outcomes, (pair.fixed(), pair.broken()), strict=True):
        console.print(f"{what}: {len(numbers):,}", highlight=False)
        for number in numbers[:MOST_LINES]:
            said = f"{pair.said_first[number]} -> {pair.said_second[number]}"
            truth = "" if pair.truths is None else f"true {pair.truths[number]}: "
            line = Text(_in_one_line(f"  {pair.examples[number]}", width - len(truth) - len(said) - 2))
            line.append(f"  {truth}{said}")
            line.truncate(width, overflow="ellipsis")
            console.print(line)
        if len(numbers) > MOST_LINES:
            console.print(f"  and {len(numbers) - MOST_LINES:,} more", highlight=False)


def write_comparison(path: Path, pair: RunPair, load_picture: Callable[[str], Image.Image] | None) -> None:
    """Write the page.

    Args:
        path: HTML file to write.
        pair: the runs.
        load_picture: (path of an example) -> its picture; None where there are none.
    """

    def load(number: int) -> Image.Image:
        if load_picture is None:
            raise DataError(f"{pair.examples[number]}: its data set cannot be read")
        return load_picture(pair.examples[number])

    book = PictureBook(load, pair.examples.__getitem__, lambda number: _caption(pair, number))
    sections = [
        _figure_section("figures", "Figures", pair, pair.comparison.figures),
        _example_section(pair, pair.comparison.outcomes[0], pair.fixed(), book),
        _example_section(pair, pair.comparison.outcomes[1], pair.broken(), book),
        _figure_section("classes", "F1 of each class", pair, pair.comparison.per_class),
        _recipe_section(pair),
    ]
    title = f"{pair.first} → {pair.second}"
    write_page(path, title=title, kind=pair.task, verdict=_verdict(pair), sections=sections, book=book)


def _verdict(pair: RunPair) -> Verdict:
    fixed, broken = len(pair.fixed()), len(pair.broken())
    notes = []
    for name, found in pair.comparison.figures.items():
        if (way := _direction(name, found)) != 0:
            title = described(name)[0]
            text = f"{title}: {figure(found.first)} → {figure(found.second)}, more than chance explains."
            notes.append(Note("good" if way > 0 else "bad", text))
    if all(np.isnan(found.low) for found in pair.comparison.figures.values()):
        notes = [Note("watch", "Too few examples to tell whether more than chance explains a difference.")]
    elif not notes:
        notes = [Note("watch", "No figure differs by more than chance explains (95 % intervals hold 0).")]
    better, worse = pair.comparison.outcomes
    headline = f"{fixed:,} of {len(pair.examples):,} {better}, {broken:,} {worse}"
    return Verdict(headline, notes)


def _direction(name: str, found: FigureDifference) -> int:
    """1 where the second is better beyond chance, -1 where it is worse, else 0."""
    sign = (found.low > 0) - (found.high < 0)
    return -sign if name in LOWER_IS_BETTER else sign


def _figure_section(
    anchor: str, title: str, pair: RunPair, figures: Mapping[str, FigureDifference]
) -> Section:
    rows = []
    for name, found in figures.items():
        shown = described(name)[0] if anchor == "figures" else name
        change = found.second - found.first
        verdict = {1: "better", -1: "worse", 0: "within chance"}[_direction(name, found)]
        if np.isnan(found.low):
            verdict = "unknown"
        rows.append(
            [
                Cell(shown, shown),
                Cell(figure(found.first), found.first),
                Cell(figure(found.second), found.second),
                Cell(_signed(change), change),
                Cell(_interval(found), found.low),
                Cell(verdict, verdict),
            ]
        )
    columns = [
        Column("figure" if anchor == "figures" else "class"),
        Column(pair.first),
        Column(pair.second),
        Column("difference"),
        Column("95 % interval", "of the difference, from the same draws of examples for both"),
        Column("verdict"),
    ]
    return Section(anchor, title, "", draw_table(columns, rows, label=title))


def _example_section(pair: RunPair, outcome: str, numbers: list[int], book: PictureBook) -> Section:
    shown = book.add(numbers[:MOST_PICTURES]) if pair.are_pictures else numbers[:MOST_PICTURES]
    body = render("gallery.html", examples=shown) if pair.are_pictures and shown else Markup()
    if not pair.are_pictures:
        body = _text_table(pair, shown, outcome)
    some = f", {len(shown)} of them shown" if len(shown) < len(numbers) else ""
    order = "." if pair.comparison.gain_N is None else "; what changed most comes first."
    lead = f"{len(numbers):,} examples{some}{order}"
    return Section(outcome, outcome.capitalize(), lead, body)


def _text_table(pair: RunPair, numbers: Sequence[int], outcome: str) -> Markup:
    texts = {name.replace("_", " "): column for name, column in pair.parts.items()}
    if pair.truths is not None:
        texts["true"] = pair.truths
    columns = [*texts.items(), (pair.first, pair.said_first), (pair.second, pair.said_second)]
    rows = [
        [Cell(text, text) for text in (_in_one_line(column[number], LONGEST_TEXT) for _, column in columns)]
        for number in numbers
    ]
    return draw_table([Column(name) for name, _ in columns], rows, label=outcome)


def _recipe_section(pair: RunPair) -> Section:
    rows = [[Cell(text, text) for text in row] for row in pair.recipe_differences]
    columns = [Column("key"), Column(pair.first), Column(pair.second)]
    body = draw_table(columns, rows, label="Differences of the recipes") or Markup("<p>None.</p>")
    return Section("recipe", "Recipe", "What the two recipes say differently.", body)


def _caption(pair: RunPair, number: int) -> Caption:
    is_right = bool(pair.comparison.is_right_N[number])
    said = [(pair.said_first[number], not is_right), (pair.said_second[number], is_right)]
    chips = [
        Chip(text or "nothing", "good" if is_good else "bad", f"said by {run}")
        for (text, is_good), run in zip(said, (pair.first, pair.second), strict=True)
    ]
    return Caption(not is_right, [chips[0], Chip("→", "arrow", "then"), chips[1]])


def _in_one_line(text: str, longest: int) -> str:
    line = text.replace("\n", " ")
    return line if len(line) <= longest else f"{line[: max(longest - 1, 0)]}…"


def _interval(found: FigureDifference) -> str:
    return "unknown" if np.isnan(found.low) else f"{_signed(found.low)} to {_signed(found.high)}"


def _signed(value: float) -> str:
    return f"{value:+.4f}"
