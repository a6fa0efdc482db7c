"""The page of a search: queries that find the wrong pictures, with what they find.

Legend of axes: Q queries, K neighbours.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from hf_tasks.contract.answers import RetrievalAnswers
from hf_tasks.report import record
from hf_tasks.report.captions import Caption, Chip
from hf_tasks.report.charts import Bar, Chart, Mark, draw_chart
from hf_tasks.report.compression import compression_section
from hf_tasks.report.page import Note, Page, Section, Verdict, figure, percent, render
from hf_tasks.report.pictures import PictureBook
from hf_tasks.report.record import RunRecord
from hf_tasks.report.tables import Cell, Column, draw_table
from hf_tasks.report.verdict import export_notes, few_examples, learning_notes, too_few

SHOWN_NEIGHBOURS = 5
PER_CLASS = 3
MOST_CLASSES = 200
BINS = 30


def retrieval_page(run: RunRecord, answers: RetrievalAnswers, count: int) -> Page:
    """The page of a run that looks pictures up.

    Args:
        run: what the run left behind.
        answers: to its queries.
        count: queries in each gallery.
    """
    book = _book(answers)
    searches = search_section(answers, book, count=count)
    classes = class_section(answers, book)
    sizes = [example.size for example in book.examples.values() if example.source]
    sections = [
        record.metric_section(run),
        searches,
        classes,
        distance_section(answers),
        compression_section(run.metrics),
        *record.closing_sections(run, sizes),
    ]
    return Page(_verdict(run, answers), sections, book)


def search_section(answers: RetrievalAnswers, book: PictureBook, *, count: int) -> Section:
    """The queries that went most wrong, each beside its nearest pictures; then the narrowest right ones."""
    body = Markup()
    for title, numbers in _outcomes(answers).items():
        shown = [_shown(answers, book, number) for number in numbers[:count]]
        if shown:
            heading = Markup("<h3>{} ({:,})</h3>").format(title, len(numbers))
            body += heading + render("searches.html", searches=shown)
    lead = (
        "Left the query, then the pictures nearest to it with their distance: green of its class, red of "
        "another. The worst come first."
    )
    return Section("searches", "Searches", lead, body)


def class_section(answers: RetrievalAnswers, book: PictureBook) -> Section:
    """A row a class of queries: how often the first is right, and the wrong ones to look at."""
    classes, is_first_right_Q = np.asarray(answers.query_classes), _is_first_right(answers)
    known_Q = np.flatnonzero(answers.is_known_Q)
    worst = sorted(
        ((float(is_first_right_Q[mine].mean()), str(name), mine) for name, mine in _groups(classes, known_Q)),
        key=lambda row: row[:2],
    )
    rows = []
    for share, name, mine in worst[:MOST_CLASSES]:
        wrong = mine[~is_first_right_Q[mine]]
        pictures = [number for query in wrong[:PER_CLASS] for number in _shown(answers, book, int(query))]
        opens = f"{name}: queries whose first is wrong"
        rows.append(
            [
                Cell(name, name),
                Cell(f"{len(mine):,}", len(mine)),
                Cell(percent(share), share, bar=share),
                Cell(f"{len(wrong):,}", len(wrong), examples=pictures, opens=opens),
            ]
        )
    columns = [Column("class"), Column("queries"), Column("first is right"), Column("first is wrong")]
    return Section(
        "classes", "Classes", "The weakest first.", draw_table(columns, rows, label="Queries of each class")
    )


def distance_section(answers: RetrievalAnswers) -> Section:
    """How far the nearest picture is where it is right and where it is not, and where the cut-off lies."""
    nearest_Q, is_right_Q = answers.distances_QK[:, 0], _is_first_right(answers)
    found = np.isfinite(nearest_Q)
    most = float(max(nearest_Q[found].max(initial=0.0), answers.cutoff_distance)) * 1.05 + 1e-6
    parts = {
        "Nearest is of the query's class": ("bar-good", is_right_Q),
        "Nearest is of another class": ("bar-bad", ~is_right_Q),
    }
    charts = []
    for title, (style, chosen_Q) in parts.items():
        counts, edges = np.histogram(nearest_Q[found & chosen_Q], bins=BINS, range=(0, most))
        bars = [
            Bar(low, high, count, f"{figure(low)} to {figure(high)}: {count:,}", style)
            for count, low, high in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
            if count
        ]
        cutoff = Mark(f"cut-off: {figure(answers.cutoff_distance)}", (answers.cutoff_distance, 0.0))
        charts.append(Chart(title, "distance", "", bars=bars, upright=cutoff, x_range=(0.0, most)))
    drawn = [svg for chart in charts if (svg := draw_chart(chart))]
    lead = "A cut-off is good when green lies left of it and red right of it: what is beyond is refused."
    return Section("distances", "Distances", lead, render("charts.html", charts=drawn))


def _verdict(run: RunRecord, answers: RetrievalAnswers) -> Verdict:
    known = answers.is_known_Q
    if not known.any():
        return Verdict("No query is of a class that the gallery has", [])
    right = float(_is_first_right(answers)[known].mean())
    headline = f"{percent(right)} of {int(known.sum()):,} queries find their class first"
    findings = (
        _against_chance(answers, right),
        _cutoff(run.metrics, int((~known).sum())),
        too_few(int(known.sum()), what="queries"),
        few_examples(run.metrics, "cmc_at_1", what="the share that finds its class first"),
        learning_notes(run.history),
        export_notes(run.exports),
    )
    return Verdict(headline, [note for notes in findings for note in notes])


def _against_chance(answers: RetrievalAnswers, right: float) -> Iterator[Note]:
    counts = np.unique(np.asarray(answers.gallery_classes), return_counts=True)[1]
    guess = float(counts.max() / counts.sum())
    if right <= guess:
        yield Note("bad", f"No better than always answering the gallery's largest class: {percent(guess)}.")
    else:
        yield Note("good", f"Far from guessing: the gallery's largest class is {percent(guess)} of it.")


def _cutoff(metrics: Mapping[str, Any], unknown: int) -> Iterator[Note]:
    if "wrong" in metrics:
        level = "good" if metrics["wrong"] <= 0.02 else "watch" if metrics["wrong"] <= 0.1 else "bad"
        refused = percent(metrics["rejected"])
        yield Note(
            level, f"At the cut-off {percent(metrics['wrong'])} are accepted wrongly, {refused} refused."
        )
    if not unknown:
        yield Note("watch", "No query is of an unknown class, so refusing was not tried on strangers.")


def _outcomes(answers: RetrievalAnswers) -> dict[str, np.ndarray]:
    """Queries by what became of them, the worst of each first."""
    nearest_Q = answers.distances_QK[:, 0]
    is_accepted_Q, is_right_Q = nearest_Q <= answers.cutoff_distance, _is_first_right(answers)
    outcomes = {
        "Taken for another class": answers.is_known_Q & is_accepted_Q & ~is_right_Q,
        "Unknown, but accepted": ~answers.is_known_Q & is_accepted_Q,
        "Known, but refused": answers.is_known_Q & ~is_accepted_Q,
    }
    found = {title: np.flatnonzero(is_so_Q) for title, is_so_Q in outcomes.items()}
    found = {
        title: numbers[np.argsort(nearest_Q[numbers], kind="stable")] for title, numbers in found.items()
    }
    narrow = np.flatnonzero(is_accepted_Q & is_right_Q)
    narrowest = narrow[np.argsort(-nearest_Q[narrow], kind="stable")]
    return {**found, "Right, the narrowest first": narrowest}


def _is_first_right(answers: RetrievalAnswers) -> np.ndarray:
    nearest_Q = answers.neighbours_QK[:, 0]
    said_Q = np.asarray(answers.gallery_classes, dtype=object)[nearest_Q]
    return (nearest_Q >= 0) & (said_Q == np.asarray(answers.query_classes, dtype=object))


def _groups(classes_Q: np.ndarray, chosen: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    order = chosen[np.argsort(classes_Q[chosen], kind="stable")]
    names, starts = np.unique(classes_Q[order], return_index=True)
    return zip(names, np.split(order, starts[1:]), strict=True)


def _shown(answers: RetrievalAnswers, book: PictureBook, query: int) -> list[int]:
    """A query and its neighbours as numbers of the book; a neighbour has one for each query that finds it."""
    neighbours = answers.neighbours_QK[query, :SHOWN_NEIGHBOURS]
    first = len(answers.query_paths) + query * SHOWN_NEIGHBOURS
    return book.add([query, *(first + place for place in np.flatnonzero(neighbours >= 0).tolist())])


def _book(answers: RetrievalAnswers) -> PictureBook:
    queries = len(answers.query_paths)

    def neighbour(number: int) -> tuple[int, int]:
        query, place = divmod(number - queries, SHOWN_NEIGHBOURS)
        return query, place

    def load(number: int) -> Image.Image:
        if number < queries:
            return answers.load_query(number)
        return answers.load_gallery(int(answers.neighbours_QK[neighbour(number)]))

    def path(number: int) -> str:
        if number < queries:
            return answers.query_paths[number]
        return answers.gallery_paths[int(answers.neighbours_QK[neighbour(number)])]

    def caption(number: int) -> Caption:
        if number < queries:
            return Caption(None, [Chip(answers.query_classes[number], "plain", "class of the query")])
        query, place = neighbour(number)
        said = answers.gallery_classes[int(answers.neighbours_QK[query, place])]
        is_right = said == answers.query_classes[query]
        distance = f"{answers.distances_QK[query, place]:.3f}"
        chips = [Chip(said, "good" if is_right else "bad", "class"), Chip(distance, "plain", "distance")]
        return Caption(not is_right, chips)

    return PictureBook(load, path, caption)
