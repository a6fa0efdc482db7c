"""What a run left behind, and the sections that a page shows of any run, whatever its task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

from markupsafe import Markup

from hf_tasks.report.charts import COLOURS, Chart, Line, Mark, draw_chart
from hf_tasks.report.names import NAMES, described
from hf_tasks.report.page import Section, figure, percent, render
from hf_tasks.report.tables import Cell, Column, draw_table

NO_SHARES = frozenset({"loss", "perplexity", "bits_per_byte", "cutoff_distance", "threshold", "spearman"})
NO_FIGURES = frozenset({"train_loss", "learning_rate"})
AXIS_STARTS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98)
TIMES = ("runtime", "per_second", "preparation_time")


@dataclass(frozen=True)
class RunRecord:
    """The files of a run, as plain values."""

    name: str
    task: str
    metrics: Mapping[str, Any]
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    recipe: str
    history: Sequence[Mapping[str, Any]]
    """Entries of the Trainer's log, in their order."""
    exports: Sequence[Mapping[str, Any]] = ()
    """What each exported format measured."""


def metric_section(record: RunRecord) -> Section:
    """Every single figure, with its 95 % interval where there is one."""
    intervals = record.metrics.get("intervals", {})
    rows = []
    for name, value in record.metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if name == "f1_micro" and isclose(value, record.metrics.get("accuracy", -1)):
            continue  # of one class per example it is the accuracy
        title, about = described(name)
        is_share = isinstance(value, float) and name not in NO_SHARES and 0 <= value <= 1
        shown = percent if is_share else figure
        interval = intervals.get(name)
        low, high = ("", "") if interval is None else map(shown, interval)
        row = {"name": title, "about": about, "value": value, "text": shown(value), "is_share": is_share}
        rows.append({**row, "interval": interval, "low": low, "high": high})
    lead = "The band is where other validation examples could as well have put it, 19 times in 20."
    body = render("intervals.html", rows=rows, least=_axis_start(rows)) if rows else Markup()
    return Section("metrics", "Figures", lead if intervals else "", body)


def _axis_start(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Where an axis up to 1 must start to hold all intervals; None where there are none."""
    lows = [row["interval"][0] for row in rows if row["is_share"] and row["interval"]]
    return max(start for start in AXIS_STARTS if start <= min(lows)) if lows else None


def curve_section(record: RunRecord) -> Section:
    """Losses, metrics and learning rate over the epochs; figures of a single evaluation are no curve."""
    curves = _curves(record.history)
    best = _best_mark(record)
    losses = [("train_loss", "training"), ("loss", "validation")]
    loss_lines = [Line(title, curves[name]) for name, title in losses if name in curves]
    rates = curves.get("learning_rate", [])
    charts = [
        Chart("Loss", "epoch", "", lines=loss_lines, upright=best),
        Chart(
            "Validation figures",
            "epoch",
            "",
            lines=_share_lines(curves),
            upright=best,
            shows_percent=True,
        ),
        *(
            Chart(NAMES[name][0], "epoch", "", lines=[Line(NAMES[name][0], curves[name])], upright=best)
            for name in ("perplexity", "bits_per_byte")
            if len(curves.get(name, ())) > 1
        ),
        Chart("Learning rate", "epoch", "", lines=[Line("learning rate", rates if len(rates) > 1 else [])]),
    ]
    drawn = [svg for chart in charts if (svg := draw_chart(chart))]
    lead = "Validation loss that rises while training loss falls means that the run learns by heart."
    return Section("curves", "Learning", lead, render("charts.html", charts=drawn) if drawn else Markup())


def data_section(record: RunRecord, sizes: Sequence[tuple[int, int]] = ()) -> Section:
    """Counts, sources, what was skipped, and the sizes of the pictures that the page shows."""
    data = record.data
    facts: list[tuple[str, str]] = []
    for name in ("train", "validation"):
        if isinstance(part := data.get(name), Mapping):
            facts.append((f"{name} rows", figure(part.get("rows", ""))))
    for name, source in data.get("sources", {}).items():
        facts.append((f"{name} from", _source_text(source)))
    if sizes:
        facts.append((f"sizes of {len(sizes)} pictures shown", _sizes_text(sizes)))
    for name, value in data.items():
        if name not in ("train", "validation", "sources", "classes", "fingerprint"):
            facts.append((name.replace("_", " "), _short(value)))
    if "fingerprint" in data:
        facts.append(("fingerprint", data["fingerprint"][:16]))
    body = render("facts.html", facts=facts) + _class_counts(data)
    return Section("data", "Data", "What the run was trained and measured on.", body)


def environment_section(record: RunRecord) -> Section:
    """Versions, machine, and how long training took."""
    training = record.metrics.get("training", {})
    facts = [*record.environment.items(), *(training.items() if isinstance(training, Mapping) else ())]
    texts = [(name.replace("_", " "), "none" if value is None else figure(value)) for name, value in facts]
    return Section("environment", "Environment", "", render("facts.html", facts=texts))


def recipe_section(record: RunRecord) -> Section:
    """The recipe that re-runs the run."""
    return Section("recipe", "Recipe", "Trains this model again.", render("text.html", text=record.recipe))


def export_section(record: RunRecord) -> Section:
    """What each exported format measured, whatever its record holds; empty without exports."""
    flat = [_flat(entry) for entry in record.exports]
    names = dict.fromkeys(name for entry in flat for name, value in entry.items() if value not in (None, ""))
    rows = [
        [name.replace("_", " ").replace(".", ", "), *(_export_text(entry.get(name)) for entry in flat)]
        for name in names
        if name != "format"
    ]
    columns = [Column("figure"), *(Column(_export_text(entry.get("format"))) for entry in flat)]
    lead = "Each file was compared with the model it was made from, on validation examples."
    cells = [[Cell(text, text) for text in row] for row in rows]
    return Section("exports", "Exports", lead, draw_table(columns, cells, label="Exported formats"))


def closing_sections(record: RunRecord, sizes: Sequence[tuple[int, int]] = ()) -> list[Section]:
    """What every page ends with: learning, data, exports, recipe, environment."""
    return [
        curve_section(record),
        data_section(record, sizes),
        export_section(record),
        recipe_section(record),
        environment_section(record),
    ]


def _curves(history: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Points (epoch, value) by name, training loss as `train_loss`, evaluations without their prefix."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for entry in history:
        for key, value in entry.items():
            name = "train_loss" if key == "loss" else key.removeprefix("eval_")
            is_curve = key in ("loss", "learning_rate") or key.startswith("eval_")
            if is_curve and isinstance(value, int | float) and not key.endswith(TIMES):
                curves.setdefault(name, []).append((entry.get("epoch", 0.0), value))
    return curves


def _share_lines(curves: Mapping[str, list[tuple[float, float]]]) -> list[Line]:
    """Figures in [0, 1]; those that coincide once, as accuracy and micro F1 of one class per example."""
    lines: dict[tuple[tuple[float, float], ...], Line] = {}
    for name, points in sorted(curves.items()):
        is_figure = name not in NO_SHARES | NO_FIGURES and len(points) > 1
        is_share = is_figure and all(0 <= value <= 1 for _, value in points)
        if is_share and tuple(points) not in lines:
            lines[tuple(points)] = Line(described(name)[0], points)
    return list(lines.values())[:COLOURS]


def _best_mark(record: RunRecord) -> Mark | None:
    training = record.metrics.get("training", {})
    best = training.get("best_step") if isinstance(training, Mapping) else None
    epoch = next((entry["epoch"] for entry in record.history if entry.get("step") == best), None)
    return None if epoch is None else Mark("the model that was kept", (epoch, 0.0))


def _source_text(source: Any) -> str:
    if isinstance(source, Mapping):
        return ", ".join(f"{name}: {value}" for name, value in source.items() if value is not None)
    return str(source)


def _sizes_text(sizes: Sequence[tuple[int, int]]) -> str:
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    smallest, middle, largest = (
        f"{width}x{height}" for width, height in (by_area[0], by_area[len(sizes) // 2], by_area[-1])
    )
    return smallest if smallest == largest else f"{smallest} to {largest}, half of them up to {middle}"


def _short(value: Any) -> str:
    if not value:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_short(item)}" for name, item in list(value.items())[:10])
    if isinstance(value, list):
        return f"{len(value):,}: " + ", ".join(map(str, value[:10])) + (", ..." if len(value) > 10 else "")
    return figure(value)


def _class_counts(data: Mapping[str, Any]) -> Markup:
    """A row a class with its examples in both splits."""
    parts = {
        name: data[name]["rows_per_class"]
        for name in ("train", "validation")
        if isinstance(data.get(name), Mapping) and "rows_per_class" in data[name]
    }
    if not parts:
        return Markup()
    most = {name: max([1, *counts.values()]) for name, counts in parts.items()}
    names = list(dict.fromkeys(name for counts in parts.values() for name in counts))
    rows = [
        [Cell(name, name)]
        + [
            Cell(f"{counts.get(name, 0):,}", counts.get(name, 0), bar=counts.get(name, 0) / most[part])
            for part, counts in parts.items()
        ]
        for name in names
    ]
    columns = [Column("class"), *(Column(f"{part} examples") for part in parts)]
    return draw_table(columns, rows, label="Examples of each class")


def _flat(entry: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in entry.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _export_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return figure(value)
    return "" if value is None else _short(value)
