"""Charts as inline SVG: lines, bars and steps in one frame with ticks; the template draws, this places."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from hf_tasks.report.page import figure, render

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 12, 40
MOST_POINTS = 300
COLOURS = 6

Point = tuple[float, float]
Range = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """Points joined in their order; `style` is a class of the stylesheet, chosen by place if left out."""

    name: str
    points: Sequence[Point]
    style: str = ""


@dataclass(frozen=True)
class Bar:
    """A bar from `low` to `high` along x, and as high as `value`; `text` is shown when pointed at."""

    low: float
    high: float
    value: float
    text: str
    style: str = "bar"


@dataclass(frozen=True)
class Mark:
    """A dot with a name."""

    name: str
    point: Point


@dataclass(frozen=True)
class Chart:
    """What is drawn in one frame; ranges left out are those of the points and bars."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line] = ()
    bars: Sequence[Bar] = ()
    marks: Sequence[Mark] = ()
    upright: Mark | None = None
    """A vertical line through this point."""
    x_range: Range | None = None
    y_range: Range | None = None
    shows_percent: bool = False
    """Whether y is a share, written in percent."""


def draw_chart(chart: Chart) -> Markup:
    """The chart as SVG with its title and legend; nothing where it has no points and no bars."""
    if not any(line.points for line in chart.lines) and not chart.bars:
        return Markup()
    frame = _Frame.around(chart)
    lines = [
        {
            "name": line.name,
            "style": line.style or f"line-{place % COLOURS}",
            "points": " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in thinned(line.points)),
            "only": frame.place(line.points[0]) if len(line.points) == 1 else None,
        }
        for place, line in enumerate(chart.lines)
        if line.points
    ]
    return render(
        "chart.html",
        chart=chart,
        lines=lines,
        bars=[frame.box(bar) for bar in chart.bars],
        marks=[{"name": mark.name, "at": frame.place(mark.point)} for mark in chart.marks],
        upright=None if chart.upright is None else frame.x(chart.upright.point[0]),
        x_ticks=[(frame.x(value), figure(value)) for value in ticks(*frame.x_range)],
        y_ticks=[(frame.y(value), _y_text(value, chart)) for value in _y_ticks(chart, frame)],
        box={"left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM},
        width=WIDTH,
        height=HEIGHT,
    )


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most about 300 points, the first and the last among them."""
    step = math.ceil(len(points) / MOST_POINTS)
    return [*points[:: max(step, 1)], *([points[-1]] if step > 1 else [])]


def ticks(low: float, high: float) -> list[float]:
    """Four to eight round values within a range."""
    rough = (high - low) / 6
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _y_ticks(chart: Chart, frame: "_Frame") -> list[float]:
    """Of counts whole numbers alone."""
    counts = bool(chart.bars) and all(isinstance(bar.value, int) for bar in chart.bars)
    return [value for value in ticks(*frame.y_range) if not counts or value == int(value)]


@dataclass(frozen=True)
class _Frame:
    x_range: Range
    y_range: Range

    @classmethod
    def around(cls, chart: Chart) -> "_Frame":
        points = [point for line in chart.lines for point in line.points]
        xs = [x for x, _ in points] + [edge for bar in chart.bars for edge in (bar.low, bar.high)]
        ys = [y for _, y in points] + [bar.value for bar in chart.bars] + ([0.0] if chart.bars else [])
        return cls(chart.x_range or _padded(xs, 0), chart.y_range or _padded(ys, 0.05))

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * _position(value, self.x_range)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * _position(value, self.y_range)

    def place(self, point: Point) -> Point:
        return self.x(point[0]), self.y(point[1])

    def box(self, bar: Bar) -> dict[str, float | str]:
        left, right, top = self.x(bar.low), self.x(bar.high), self.y(bar.value)
        width, height = max(right - left - 1, 1), HEIGHT - BOTTOM - top
        return {"x": left, "y": top, "width": width, "height": height, "text": bar.text, "style": bar.style}


def _position(value: float, within: Range) -> float:
    return min(max((value - within[0]) / (within[1] - within[0]), 0.0), 1.0)


def _padded(values: Sequence[float], share: float) -> Range:
    low, high = min(values), max(values)
    if low == high:
        return low - 0.5, high + 0.5
    pad = (high - low) * share
    return (low if low == 0 else low - pad), high + pad


def _y_text(value: float, chart: Chart) -> str:
    return f"{100 * value:.3g}\N{NO-BREAK SPACE}%" if chart.shows_percent else figure(value)
