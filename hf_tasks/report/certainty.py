"""Whether a classifier's probabilities can be believed: reliability, histograms, precision over recall.

Legend of axes: N examples, C classes, S steps of a ranking.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from hf_tasks.contract.answers import ClassificationAnswers
from hf_tasks.report.captions import confidence, wrong_examples
from hf_tasks.report.charts import Bar, Chart, Line, Mark, draw_chart
from hf_tasks.report.page import Section, Tile, figure, percent, render
from hf_tasks.report.tables import Cell, Column, draw_table

HISTOGRAM_BINS = 20
FEW = 10
MOST_CURVES = 24
CURVE_POINTS = 120


def certainty_section(answers: ClassificationAnswers, metrics: Mapping[str, Any]) -> Section:
    """Reliability diagram, calibration error before and after a temperature, histograms of probability."""
    calibration = metrics.get("calibration", {})
    charts = [_reliability_chart(answers, calibration), *_histograms(answers)]
    drawn = [svg for chart in charts if (svg := draw_chart(chart))]
    tiles = render("tiles.html", tiles=_calibration_tiles(calibration))
    body = tiles + render("charts.html", charts=drawn) + _honesty(calibration)
    lead = (
        "Where bars reach the dashed line, probabilities can be taken at their word. "
        f"Pale bars stand for fewer than {FEW} answers."
    )
    return Section("certainty", "Certainty", lead, body)


def curve_section(answers: ClassificationAnswers, metrics: Mapping[str, Any]) -> Section:
    """For several labels: precision over recall, and the threshold that is used and the best by F1."""
    if not answers.is_multilabel:
        return Section("thresholds", "Thresholds", "", Markup())
    per_class = metrics.get("per_class", {})
    rows, charts = [], []
    for index, name in enumerate(answers.class_names):
        found_N, present_N = answers.probabilities_NC[:, index], answers.labels[:, index].astype(bool)
        used = per_class.get(name, {}).get("threshold", 0.5)
        best = per_class.get(name, {}).get("best_f1_threshold", 0.5)
        rows.append([Cell(name, name), *_threshold_cells(found_N, present_N, used, best)])
        if index < MOST_CURVES and present_N.any():
            charts.append(draw_chart(precision_chart(name, found_N, present_N, used, best)))
    columns = [
        Column("label"),
        Column("threshold", "in use"),
        Column("its F1"),
        Column("best by F1", "fitted to these rows"),
        Column("F1 there", "measured on the rows it was fitted to, so on the bright side"),
    ]
    body = render("charts.html", charts=charts) + draw_table(columns, rows, label="Threshold of each label")
    return Section("thresholds", "Thresholds", _threshold_lead(metrics), body)


def _reliability_chart(answers: ClassificationAnswers, calibration: Mapping[str, Any]) -> Chart:
    claim = "were there" if answers.is_multilabel else "were right"
    bars = [
        Bar(
            row["low"],
            row["high"],
            row["share"],
            f"{percent(row['probability'])} claimed, {percent(row['share'])} {claim} ({row['count']:,})",
            "bar" if row["count"] >= FEW else "bar pale",
        )
        for row in calibration.get("reliability", ())
    ]
    ideal = Line("probabilities that can be believed", [(0.0, 0.0), (1.0, 1.0)], style="ideal")
    return Chart(
        f"How many {claim}",
        "probability",
        "",
        lines=[ideal] if bars else [],
        bars=bars,
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        shows_percent=True,
    )


def _histograms(answers: ClassificationAnswers) -> list[Chart]:
    if answers.is_multilabel:
        present = answers.labels.astype(bool)
        parts = {
            "Probability of labels that are there": ("bar-good", answers.probabilities_NC[present]),
            "Probability of labels that are not": ("bar-bad", answers.probabilities_NC[~present]),
        }
    else:
        is_wrong_N, sure_N = wrong_examples(answers), confidence(answers)
        parts = {
            "Probability of right answers": ("bar-good", sure_N[~is_wrong_N]),
            "Probability of wrong answers": ("bar-bad", sure_N[is_wrong_N]),
        }
    charts = []
    for title, (style, values) in parts.items():
        counts, edges = np.histogram(values, bins=HISTOGRAM_BINS, range=(0, 1))
        columns = zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        bars = [
            Bar(low, high, count, f"{percent(low)} to {percent(high)}: {count:,}", style)
            for count, low, high in columns
            if count
        ]
        charts.append(Chart(title, "probability", "", bars=bars, x_range=(0.0, 1.0)))
    return charts


def _calibration_tiles(calibration: Mapping[str, Any]) -> list[Tile]:
    if not calibration:
        return []
    before, crossed = calibration["uncalibrated"], calibration.get("cross_fitted")
    tiles = [
        Tile(percent(before["ece"], 2), "calibration error", "as trained (ECE)"),
        Tile(percent(before["adaptive_ece"], 2), "with bins of equal count", "as trained (adaptive ECE)"),
        Tile(figure(before["brier"]), "Brier score", "as trained; 0 at best"),
    ]
    if crossed is not None:
        at = f"at temperature {figure(crossed['temperature'])}, cross-fitted"
        tiles.append(Tile(percent(crossed["ece"], 2), "calibration error", at))
    return tiles


def _honesty(calibration: Mapping[str, Any]) -> Markup:
    if "cross_fitted" not in calibration:
        return Markup()
    applied = calibration["temperature"]
    now = (
        f"This model divides its logits by {figure(applied)}, and the charts show it so. "
        if applied != 1
        else "This model uses no temperature; calibration.temperature in the recipe fits one. "
    )
    text = (
        "The temperature is fitted to validation rows. Measured on the same rows it would praise itself, so "
        "for the figure above each fifth of them was measured with what the other four gave."
    )
    return Markup('<p class="lead">{}{}</p>').format(now, text)


def _threshold_lead(metrics: Mapping[str, Any]) -> str:
    lead = "A label counts as predicted from its threshold on."
    thresholds = metrics.get("thresholds", {})
    if "best_f1" not in thresholds:
        return lead
    half, best = (percent(thresholds[name]["f1_macro"]) for name in ("at_half", "best_f1"))
    return (
        f"{lead} On rows they were not fitted to, the best ones give a mean F1 of {best}; 0.5 gives {half}."
    )


def precision_chart(name: str, found_N: np.ndarray, present_N: np.ndarray, used: float, best: float) -> Chart:
    """Precision over recall of one thing to find, with the places of two thresholds.

    Args:
        name: above the chart.
        found_N: rises with how surely it is there.
        present_N: whether it is, bool.
        used: threshold in use.
        best: threshold of the highest F1.
    """
    order_N = np.argsort(-found_N, kind="stable")
    sorted_N = found_N[order_N]
    steps_S = np.flatnonzero(np.append(np.diff(sorted_N) != 0, True))
    hits_S = np.cumsum(present_N[order_N])[steps_S]
    precision_S, recall_S = hits_S / (steps_S + 1), hits_S / present_N.sum()
    kept = np.unique(np.linspace(0, len(steps_S) - 1, CURVE_POINTS).astype(int))
    points = list(zip(recall_S[kept].tolist(), precision_S[kept].tolist(), strict=True))
    marks = [
        Mark(f"{title}: {figure(threshold)}", _point_at(found_N, present_N, threshold))
        for title, threshold in (("best by F1", best), ("in use", used))
    ]
    return Chart(
        name,
        "recall",
        "precision",
        lines=[Line(name, [(0.0, points[0][1]), *points])],
        marks=marks,
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        shows_percent=True,
    )


def _point_at(found_N: np.ndarray, present_N: np.ndarray, threshold: float) -> tuple[float, float]:
    predicted_N = found_N >= threshold
    hits = int((predicted_N & present_N).sum())
    return hits / max(int(present_N.sum()), 1), hits / max(int(predicted_N.sum()), 1)


def _threshold_cells(found_N: np.ndarray, present_N: np.ndarray, used: float, best: float) -> list[Cell]:
    cells = []
    for threshold in (used, best):
        predicted_N = found_N >= threshold
        whole = int(predicted_N.sum() + present_N.sum())
        f1 = 2 * int((predicted_N & present_N).sum()) / max(whole, 1)
        cells += [Cell(figure(threshold), threshold), Cell(percent(f1), f1, bar=f1)]
    return cells
