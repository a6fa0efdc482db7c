"""The page of a language model: what it writes, and the text that surprises it most.

Legend of axes: N blocks of held-out text.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from hf_tasks.contract.answers import LanguageAnswers
from hf_tasks.report import record
from hf_tasks.report.charts import Bar, Chart, draw_chart
from hf_tasks.report.page import Page, Section, Verdict, figure, percent, render
from hf_tasks.report.pictures import no_pictures
from hf_tasks.report.record import RunRecord
from hf_tasks.report.tables import Cell, Column, draw_table
from hf_tasks.report.verdict import export_notes, learning_notes

BINS = 30
LONGEST_TEXT = 600


def language_page(run: RunRecord, answers: LanguageAnswers, count: int) -> Page:
    """The page of a language model.

    Args:
        run: what the run left behind.
        answers: to its held-out blocks.
        count: blocks in each list.
    """
    sections = [
        record.metric_section(run),
        sample_section(answers),
        block_section(answers, count=count),
        *record.closing_sections(run),
    ]
    notes = [*learning_notes(run.history), *export_notes(run.exports)]
    return Page(Verdict(_headline(run.metrics), notes), sections, no_pictures())


def sample_section(answers: LanguageAnswers) -> Section:
    """What the model goes on with after beginnings of held-out documents; empty where it writes none."""
    body = render("samples.html", samples=answers.samples) if answers.samples else Markup()
    lead = "Beginnings of held-out documents in gray, and what the model goes on with."
    return Section("samples", "Samples", lead, body)


def block_section(answers: LanguageAnswers, *, count: int) -> Section:
    """How the loss spreads over blocks, and the blocks that the model foresees least and best."""
    losses_N = answers.losses_N
    counts, edges = np.histogram(losses_N, bins=BINS)
    bars = [
        Bar(low, high, number, f"{figure(low)} to {figure(high)}: {number:,}")
        for number, low, high in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        if number
    ]
    chart = draw_chart(Chart("Loss of the blocks, nats a token", "loss", "", bars=bars))
    order = np.argsort(-losses_N, kind="stable")
    body = render("charts.html", charts=[chart])
    for title, numbers in {"Foreseen least": order[:count], "Foreseen best": order[::-1][:count]}.items():
        rows = [
            [
                Cell(f"{number:,}", number),
                Cell(figure(float(losses_N[number])), float(losses_N[number])),
                Cell(_short(answers.texts[number]), answers.texts[number][:40]),
            ]
            for number in numbers.tolist()
        ]
        columns = [Column("block"), Column("loss", "nats a token"), Column("text")]
        body += Markup("<h3>{}</h3>").format(title) + draw_table(columns, rows, label=title)
    lead = "Text that it hardly foresees is often not like the training text: another language, code, noise."
    return Section("blocks", "Blocks", lead, body)


def _headline(metrics: Mapping[str, Any]) -> str:
    headline = f"Perplexity {figure(metrics['perplexity'])} on held-out text"
    if "bits_per_byte" not in metrics:
        return headline
    return f"{headline}, which it would pack to {percent(metrics['bits_per_byte'] / 8)} of its size"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
