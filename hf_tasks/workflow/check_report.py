"""A check as people read it, a table of 80 columns, and as programs read it."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from hf_tasks.contract.examination import Finding
from hf_tasks.workflow.checking import CheckReport
from hf_tasks.workflow.needs import shown_bytes, shown_seconds

SHOWN_ROWS = 3
JSON_VERSION = 1
"""Raise it when a field of the document goes or changes its meaning; new fields leave it as it is."""
COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def findings_table(report: CheckReport) -> Table:
    """A row for each finding: severity, kind and next move, count, first rows."""
    table = Table(show_lines=True, expand=True)
    table.add_column("severity", width=8)
    table.add_column("what, and what to do", ratio=5)
    table.add_column("count", justify="right", width=6)
    table.add_column("the first", ratio=6, overflow="fold")
    for finding in report.findings:
        colour = COLOURS[finding.severity]
        what = Text.assemble(finding.kind, "\n", (finding.advice, "dim"))
        first = Text("\n".join(finding.first(SHOWN_ROWS)))
        table.add_row(f"[{colour}]{finding.severity}[/]", what, str(finding.count), first)
    return table


def summary_lines(report: CheckReport) -> Iterator[str]:
    """What was looked at, what training will need, and the verdict."""
    for section, source in report.examination.sources.items():
        rows, looked_at = len(source.rows), len(source.looked_at)
        part = "all" if looked_at == rows else "a sample, --all looks at each"
        yield f"data.{section}: looked at {looked_at:,} of {rows:,} rows ({part})"
    needs = report.needs
    if needs is None:
        yield "trial: not run to its end, see above"
    else:
        yield "trial: trained, measured, saved, loaded, exported, reported as the recipe says"
        yield (
            f"time: about {shown_seconds(needs.seconds)} for {needs.steps:,} steps, estimated from one of "
            f"{shown_seconds(needs.seconds_per_step)}"
        )
        there = "" if needs.memory_there is None else f" of {shown_bytes(needs.memory_there)}"
        yield f"memory: {shown_bytes(needs.memory_bytes)}{there} at the peak of the trial"
        yield f"disk: {shown_bytes(needs.disk_bytes)} wanted, {shown_bytes(needs.disk_free)} free"
    counts = {name: sum(finding.severity == name for finding in report.findings) for name in COLOURS}
    yield "found: " + ", ".join(
        f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items()
    )


def report_json(report: CheckReport) -> dict[str, Any]:
    """The check as one JSON document, whose fields docs/check.md describes."""
    return {
        "version": JSON_VERSION,
        "ok": not report.has_errors,
        "looked_at": {
            section: {"rows": len(source.looked_at), "of": len(source.rows)}
            for section, source in report.examination.sources.items()
        },
        "findings": [_finding_json(finding) for finding in report.findings],
        "needs": None if report.needs is None else vars(report.needs),
    }


def _finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "severity": finding.severity,
        "kind": finding.kind,
        "advice": finding.advice,
        "count": finding.count,
        "rows": [
            {
                "section": row.section,
                "row": row.number,
                "text": row.text,
                "left_out": row.is_left_out,
                "label": row.label,
            }
            for row in finding.rows
        ],
        "examples": list(finding.examples),
    }
