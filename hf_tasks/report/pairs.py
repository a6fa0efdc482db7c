"""The page of a model of text pairs: scores against the threshold, pairs most wrong, texts nearly the same.

Legend of axes: N rows, K texts a row, T distinct texts, D width of embeddings.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from hf_tasks.contract.answers import PairAnswers
from hf_tasks.report import record
from hf_tasks.report.certainty import precision_chart
from hf_tasks.report.charts import Bar, Chart, Mark, draw_chart
from hf_tasks.report.page import Note, Page, Section, Verdict, figure, percent, render
from hf_tasks.report.pictures import no_pictures
from hf_tasks.report.record import RunRecord
from hf_tasks.report.tables import Cell, Column, draw_table
from hf_tasks.report.verdict import export_notes, few_examples, learning_notes, too_few

BINS = 30
LONGEST_TEXT = 300
CLUSTER_TEXTS = 3
MOST_COMPARED = 4000
"""Texts that are compared with one another: 64 MB of cosines."""


def pair_page(run: RunRecord, answers: PairAnswers, count: int) -> Page:
    """The page of a model of text pairs.

    Args:
        run: what the run left behind.
        answers: to its validation rows.
        count: pairs in each list.
    """
    sections = [
        record.metric_section(run),
        score_section(answers),
        mistake_section(answers, count=count),
        duplicate_section(answers, count=count),
        cluster_section(answers, count=count),
        *record.closing_sections(run),
    ]
    return Page(_verdict(run, answers), sections, no_pictures())


def score_section(answers: PairAnswers) -> Section:
    """How scores spread, of pairs that belong together and of others, and where the threshold lies."""
    scores_N = answers.scores_N
    ends = (float(scores_N.min()), float(scores_N.max()) + 1e-6)
    charts = []
    for title, (style, chosen_N) in _kinds(answers).items():
        counts, edges = np.histogram(scores_N[chosen_N], bins=BINS, range=ends)
        bars = [
            Bar(low, high, number, f"{figure(low)} to {figure(high)}: {number:,}", style)
            for number, low, high in zip(
                counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True
            )
            if number
        ]
        charts.append(Chart(title, "score", "", bars=bars, upright=_threshold_mark(answers), x_range=ends))
    is_true_N = _truth(answers)
    if is_true_N is not None and is_true_N.any() and answers.threshold is not None:
        curve = precision_chart("Pairs found", scores_N, is_true_N, answers.threshold, answers.threshold)
        charts.append(curve)
    drawn = [svg for chart in charts if (svg := draw_chart(chart))]
    lead = "The further apart both kinds lie, the less it matters where the threshold is."
    return Section("scores", "Scores", lead, render("charts.html", charts=drawn))


def mistake_section(answers: PairAnswers, *, count: int) -> Section:
    """The pairs whose score is most at odds with the label; without labels those with the lowest score."""
    body = Markup()
    for title, numbers in _mistakes(answers).items():
        if len(numbers):
            heading = Markup("<h3>{} ({:,})</h3>").format(title, len(numbers))
            body += heading + _table(answers, numbers[:count], title)
    return Section("mistakes", "Mistakes", "The worst come first; some are mistakes of the labels.", body)


def duplicate_section(answers: PairAnswers, *, count: int) -> Section:
    """The texts nearest to each other, and what the rows say of them."""
    chosen = _spread(len(answers.texts))
    if len(chosen) < 2:
        return Section("duplicates", "Nearly the same", "", Markup())
    found = _nearest_pairs(answers.embeddings_TD[chosen], count)
    labels = _labels_by_pair(answers)
    rows = []
    for first, second, cosine in ((chosen[i], chosen[j], cosine) for i, j, cosine in found):
        said = labels.get((min(first, second), max(first, second)), "no row")
        texts = (answers.texts[first], answers.texts[second])
        rows.append([*(Cell(_short(text), text[:40]) for text in texts), _number(cosine), Cell(said, said)])
    columns = [Column("text"), Column("its nearest"), Column("cosine"), Column("label", "of a row with both")]
    lead = f"The nearest to each other of {len(chosen):,} texts: probable duplicates."
    return Section("duplicates", "Nearly the same", lead, draw_table(columns, rows, label="Nearest texts"))


def cluster_section(answers: PairAnswers, *, count: int) -> Section:
    """The largest clusters with a few of their texts, those that belong to them most; empty without any."""
    found = answers.clusters
    if found is None or not len(found):
        return Section("clusters", "Clusters", "", Markup())
    clusters_T = found["cluster"].to_numpy()
    names, starts, sizes = np.unique(clusters_T[clusters_T >= 0], return_index=True, return_counts=True)
    rows = []
    for place in np.argsort(-sizes, kind="stable")[:count].tolist():
        size = int(sizes[place])
        texts = found["text"].slice(starts[place], min(size, CLUSTER_TEXTS)).to_pylist()
        shown = " · ".join(map(_short, texts))
        rows.append([_number(float(names[place])), Cell(f"{size:,}", size), Cell(shown, shown[:40])])
    lead = f"{len(names):,} clusters hold {sizes.sum():,} of {len(found):,} texts; clusters.csv has them all."
    columns = [Column("cluster"), Column("texts"), Column("the first of them")]
    return Section("clusters", "Clusters", lead, draw_table(columns, rows, label="Largest clusters"))


def _verdict(run: RunRecord, answers: PairAnswers) -> Verdict:
    metrics, count = run.metrics, len(answers.scores_N)
    if metrics.get("accuracy") is not None:
        headline = f"{percent(metrics['accuracy'])} of {count:,} pairs called rightly"
    elif metrics.get("spearman") is not None:
        headline = f"Rank correlation {figure(metrics['spearman'])} with {count:,} labels"
    elif "recall_at_1" in metrics:
        headline = f"{percent(metrics['recall_at_1'])} of texts find their partner first"
    else:
        headline = f"{count:,} pairs scored"
    findings = (
        _against_guessing(answers, metrics),
        _threshold_note(answers),
        too_few(count, what="pairs"),
        few_examples(metrics, "accuracy", what="accuracy"),
        few_examples(metrics, "recall_at_1", what="the share that finds its partner first"),
        learning_notes(run.history),
        export_notes(run.exports),
    )
    return Verdict(headline, [note for notes in findings for note in notes])


def _against_guessing(answers: PairAnswers, metrics: Mapping[str, Any]) -> Iterator[Note]:
    is_true_N = _truth(answers)
    if is_true_N is None or metrics.get("accuracy") is None:
        return
    guess = float(max(is_true_N.mean(), 1 - is_true_N.mean()))
    if metrics["accuracy"] <= guess:
        yield Note("bad", f"No better than one answer for all, which is right for {percent(guess)}.")
    else:
        yield Note("good", f"Far from guessing: one answer for all would be right for {percent(guess)}.")


def _threshold_note(answers: PairAnswers) -> Iterator[Note]:
    if answers.threshold is not None and _truth(answers) is not None:
        text = f"Pairs count as true from a score of {figure(answers.threshold)}, fitted to these rows."
        yield Note("watch", text)


def _truth(answers: PairAnswers) -> np.ndarray | None:
    """Whether each pair belongs together, bool (N,); None where labels are scores or missing."""
    labels_N = answers.labels_N
    if labels_N is None or not np.isin(labels_N, (0, 1)).all():
        return None
    return labels_N.astype(bool)


def _kinds(answers: PairAnswers) -> dict[str, tuple[str, np.ndarray]]:
    is_true_N = _truth(answers)
    if is_true_N is None:
        return {"Scores of all pairs": ("bar", np.ones(len(answers.scores_N), bool))}
    return {
        "Pairs that belong together": ("bar-good", is_true_N),
        "Pairs that do not": ("bar-bad", ~is_true_N),
    }


def _threshold_mark(answers: PairAnswers) -> Mark | None:
    at = answers.threshold
    return None if at is None else Mark(f"threshold: {figure(at)}", (at, 0.0))


def _mistakes(answers: PairAnswers) -> dict[str, np.ndarray]:
    scores_N, is_true_N, labels_N = answers.scores_N, _truth(answers), answers.labels_N
    if labels_N is None:
        return {"Partners with the lowest scores": np.argsort(scores_N, kind="stable")}
    if is_true_N is None or answers.threshold is None:
        distance_N = np.abs(_ranks(scores_N) - _ranks(labels_N))
        return {"Ranked most unlike their label": np.argsort(-distance_N, kind="stable")}
    is_called_N = scores_N >= answers.threshold
    alarms, missed = np.flatnonzero(is_called_N & ~is_true_N), np.flatnonzero(~is_called_N & is_true_N)
    return {
        "Called the same, but are not": alarms[np.argsort(-scores_N[alarms], kind="stable")],
        "The same, but missed": missed[np.argsort(scores_N[missed], kind="stable")],
    }


def _ranks(values_N: np.ndarray) -> np.ndarray:
    """Place of each value among all, in [0, 1); equal ones share the middle of their places."""
    ordered = np.sort(values_N)
    low, high = (np.searchsorted(ordered, values_N, side=side) for side in ("left", "right"))
    return (low + high) / (2 * len(values_N))


def _table(answers: PairAnswers, numbers: np.ndarray, title: str) -> Markup:
    labels_N = answers.labels_N
    rows = []
    for number in numbers.tolist():
        texts = [answers.texts[place] for place in answers.numbers_NK[number, :2]]
        label = [] if labels_N is None else [_number(float(labels_N[number]))]
        cells = [Cell(_short(text), text[:40]) for text in texts]
        rows.append([*cells, _number(float(answers.scores_N[number])), *label])
    columns = [Column("text"), Column("other text"), Column("score")]
    return draw_table([*columns, *([] if labels_N is None else [Column("label")])], rows, label=title)


def _spread(count: int) -> list[int]:
    """All numbers below count, or as many as can be compared, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_COMPARED)).astype(int)).tolist()


def _nearest_pairs(embeddings_TD: np.ndarray, count: int) -> list[tuple[int, int, float]]:
    """The pairs of rows with the highest cosines, highest first."""
    lengths_T = np.linalg.norm(embeddings_TD, axis=1, keepdims=True)
    unit_TD = (embeddings_TD / np.maximum(lengths_T, 1e-12)).astype(np.float32)
    cosines_TT = unit_TD @ unit_TD.T
    cosines_TT[np.tril_indices(len(unit_TD))] = -np.inf
    pairs = len(unit_TD) * (len(unit_TD) - 1) // 2
    kept = np.argpartition(-cosines_TT, min(count, pairs) - 1, axis=None)[: min(count, pairs)]
    kept = kept[np.argsort(-cosines_TT.flat[kept], kind="stable")]
    places = (divmod(place, len(unit_TD)) for place in kept.tolist())
    return [(first, second, float(cosines_TT[first, second])) for first, second in places]


def _labels_by_pair(answers: PairAnswers) -> dict[tuple[int, int], str]:
    firsts, seconds = np.sort(answers.numbers_NK[:, :2], axis=1).T.tolist()
    labels: Sequence[Any] = (
        ["a pair"] * len(firsts) if answers.labels_N is None else answers.labels_N.tolist()
    )
    texts = (label if isinstance(label, str) else figure(label) for label in labels)
    return dict(zip(zip(firsts, seconds, strict=True), texts, strict=True))


def _number(value: float) -> Cell:
    return Cell(figure(value), value)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
