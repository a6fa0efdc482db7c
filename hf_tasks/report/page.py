"""A page of sections as one HTML file: style, script and pictures inside, nothing fetched, all escaped."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hf_tasks.files import write_text
from hf_tasks.report.pictures import PictureBook


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    anchor: str
    """Its address within the page, such as `confusion`."""
    title: str
    lead: str
    """One plain sentence on what is to be seen."""
    body: Markup


@dataclass(frozen=True)
class Note:
    """One finding of a verdict; `level` is good, watch or bad."""

    level: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """What a page says first."""

    headline: str
    notes: Sequence[Note]


@dataclass(frozen=True)
class Tile:
    """A figure drawn large, with what it is below it."""

    figure: str
    label: str
    detail: str = ""


@dataclass(frozen=True)
class Page:
    """What a page says and shows."""

    verdict: Verdict
    sections: Sequence[Section]
    book: PictureBook


def render(template: str, **values: Any) -> Markup:
    """One of the templates beside this file; values are escaped unless they are Markup."""
    return Markup(environment().get_template(template).render(**values))


def write_page(
    path: Path, *, title: str, kind: str, verdict: Verdict, sections: Sequence[Section], book: PictureBook
) -> None:
    """Write a page aside and rename it, so that a crash leaves the old one or the new one.

    Args:
        path: HTML file.
        title: name of what is shown, such as that of a run.
        kind: what it is, such as the task.
        verdict: said at the top.
        sections: in their order.
        book: every picture that the sections show.
    """
    script, style = _resource("script.js"), _resource("style.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = render(
        "page.html",
        title=title,
        kind=kind,
        verdict=verdict,
        sections=[section for section in sections if section.body],
        examples=book.examples.values(),
        style=Markup(style),
        script=Markup(script),
        script_digest=digest,
    )
    write_text(path, page)


@cache
def environment() -> Environment:
    """Jinja with escaping on and unknown names refused."""
    made = Environment(
        loader=PackageLoader("hf_tasks.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": percent, "figure": figure}
    return made


def percent(share: float, digits: int = 1) -> str:
    """A share as people read it: `97.5 %`, unbroken; never rounded up to 100 nor down to 0."""
    shown = f"{100 * share:.{digits}f}"
    if share < 1 and float(shown) == 100:
        return f"> {100 - 10**-digits:.{digits}f}\N{NO-BREAK SPACE}%"
    if share > 0 and float(shown) == 0:
        return f"< {10**-digits:.{digits}f}\N{NO-BREAK SPACE}%"
    return shown.removesuffix(".0") + "\N{NO-BREAK SPACE}%"


def figure(value: Any) -> str:
    """A number in four figures, thousands set apart; anything else as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _resource(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
