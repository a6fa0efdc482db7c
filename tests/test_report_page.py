"""Pages as files: all escaped, nothing fetched, figures written as people read them, charts in place."""

import base64
import hashlib
import re
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reports import HISTORY, Elements, build_answers, build_record

from hf_tasks.errors import DataError
from hf_tasks.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Bar,
    Chart,
    Line,
    draw_chart,
    thinned,
    ticks,
)
from hf_tasks.report.page import figure, percent
from hf_tasks.report.pictures import MOST, PictureBook
from hf_tasks.report.record import curve_section, export_section, metric_section
from hf_tasks.report.tables import Cell, Column, draw_table
from hf_tasks.report.write import write_report

NBSP = "\N{NO-BREAK SPACE}"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    answers = build_answers()
    write_report(path, build_record(answers), answers, wrong_images=5)
    return path.read_text(encoding="utf-8")


@settings(max_examples=8, deadline=None)
@given(name=st.text(alphabet="<>&\"'/{}%ab\N{GREEK SMALL LETTER ALPHA}`=", min_size=1, max_size=20))
def test_whatever_a_class_is_called_stays_text(tmp_path_factory, name):
    path = tmp_path_factory.mktemp("names") / "report.html"
    answers = build_answers(class_names=("plain", "<img src=x onerror=alert(1)>" + name, "third"))

    write_report(path, build_record(answers, recipe=f"task: {name}"), answers, wrong_images=5)

    elements = Elements(path.read_text(encoding="utf-8"))
    assert all("onerror" not in attributes for _, attributes in elements.tags)
    assert any("<img src=x onerror=alert(1)>" + name in text for text in elements.text)


def test_the_page_refers_to_nothing_outside_itself(page):
    for tag, attributes in Elements(page).tags:
        for key in ("src", "href", "srcset", "action", "data"):
            address = attributes.get(key) or "#"
            assert address.startswith(("#", "data:")), (tag, key, address)
    assert "url(" not in page
    assert "@import" not in page


def test_the_only_script_that_may_run_is_the_page_s_own(page):
    script = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)

    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert len(script) == 1
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


def test_the_page_holds_all_that_the_issue_lists(page):
    anchors = re.findall(r'<section id="(\w+)"', page)

    assert anchors == [
        "metrics", "confusion", "mistakes", "suspects", "classes", "certainty", "curves", "data", "recipe",
        "environment",
    ]  # fmt: skip


def test_a_thumbnail_is_stored_once_however_often_it_is_shown(page):
    numbers = re.findall(r'<template id="example-(\d+)">', page)

    assert len(numbers) == len(set(numbers))
    assert page.count("data:image/webp") == len(numbers)


def test_every_example_that_is_shown_is_in_the_page(page):
    shown = {
        number for numbers in re.findall(r'data-examples="([\d ]+)"', page) for number in numbers.split()
    }

    stored = set(re.findall(r'<template id="example-(\d+)">', page))
    assert shown == stored


def test_a_kind_of_answers_that_is_not_known_still_gets_a_page(tmp_path):
    record = build_record(build_answers(), metrics={"perplexity": 12.5}, task="language-model")

    write_report(tmp_path / "report.html", record, object(), wrong_images=5)

    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "perplexity 12.5" in page
    assert re.findall(r'<section id="(\w+)"', page) == ["metrics", "curves", "data", "recipe", "environment"]


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100"), (0.99999, "> 99.9"), (0.975, "97.5"), (0.5, "50"), (0.0001, "< 0.1"), (0.0, "0")],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share, text):
    assert percent(share) == text + NBSP + "%"


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345, "12,345"), (0.123456, "0.1235"), (12345.6, "12,346"), ("a", "a"), (True, "True")],
)
def test_numbers_have_four_figures(value, text):
    assert figure(value) == text


@settings(max_examples=100, deadline=None)
@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6))
def test_ticks_are_few_and_within_the_range(low, width):
    found = ticks(low, low + width)

    assert 2 <= len(found) <= 8
    assert all(low - 1e-6 * width <= value <= low + width * (1 + 1e-6) for value in found)


def test_ticks_are_round():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(3, 17) == [5, 10, 15]


def test_points_stand_where_their_values_are():
    chart = Chart("t", "x", "y", lines=[Line("a", [(0, 0), (1, 1)])], x_range=(0, 1), y_range=(0, 1))

    svg = draw_chart(chart)

    corners = f"{LEFT:.1f},{HEIGHT - BOTTOM:.1f} {WIDTH - RIGHT:.1f},{TOP:.1f}"
    assert f'points="{corners}"' in svg


def test_a_bar_is_as_high_as_its_value():
    svg = draw_chart(Chart("t", "x", "y", bars=[Bar(0, 1, 5, "five")], x_range=(0, 1), y_range=(0, 10)))

    height = (HEIGHT - TOP - BOTTOM) / 2
    assert f'height="{height:.1f}"' in svg
    assert "<title>five</title>" in svg


def test_counts_are_marked_by_whole_numbers():
    few, shares = (
        draw_chart(Chart("t", "x", "y", bars=[Bar(0, 1, value, "")], y_range=(0, 2))) for value in (2, 2.0)
    )

    assert ">1.5<" not in few.split('text-anchor="end"', 1)[1]
    assert ">1.5<" in shares.split('text-anchor="end"', 1)[1]


def test_figures_of_one_evaluation_are_no_curve():
    history = [
        {"epoch": 1.0, "step": 10, "loss": 2.0, "eval_loss": 1.0, "eval_perplexity": 2.7, "eval_f1": 0.5}
    ]

    section = curve_section(build_record(build_answers(), history=history))

    assert section.body.count('class="chart"') == 1
    assert "Loss" in section.body


def test_figures_are_named_and_explained():
    metrics = {"cmc_at_5": 0.9, "precision": 0.8, "own_figure": 2.0}

    section = metric_section(build_record(build_answers(), metrics=metrics))

    assert "Right within the first 5<small>" in section.body
    assert "among the 5 nearest" in section.body
    assert ">Precision<small>" in section.body
    assert ">own figure</th>" in section.body


def test_cells_of_a_table_of_texts_say_their_column():
    long = Cell("word " * 20, "word")

    table = draw_table([Column("<b>"), Column("score")], [[long, Cell("1", 1)]], label="t")

    assert 'data-name="&lt;b&gt;"' in table
    assert 'data-name="score"' in table
    assert "data-name" not in draw_table([Column("a")], [[Cell("short", "short")]], label="t")


def test_a_chart_without_points_is_not_drawn():
    assert draw_chart(Chart("t", "x", "y", lines=[Line("a", [])])) == ""


def test_long_lines_are_thinned_but_keep_their_ends():
    points = [(float(x), float(x)) for x in range(10_001)]

    kept = thinned(points)

    assert len(kept) <= 302
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]


def test_curves_are_those_of_the_log():
    section = curve_section(build_record(build_answers()))

    assert "the model that was kept" in section.body
    assert section.body.count('class="chart"') == 3
    assert "runtime" not in section.body


def test_curves_need_a_log():
    assert curve_section(build_record(build_answers(), history=())).body == ""
    assert curve_section(build_record(build_answers(), history=HISTORY[:1])).body != ""


def test_figures_stand_with_their_intervals():
    metrics = {"accuracy": 0.9, "loss": 0.5, "intervals": {"accuracy": [0.85, 0.95]}}

    section = metric_section(build_record(build_answers(), metrics=metrics))

    assert f"85{NBSP}% to 95{NBSP}%" in section.body
    # The axis starts at 80 %: 0.85 is a quarter of the way to 1, 0.95 three quarters, 0.9 half.
    assert "--low:0.2500;--high:0.7500;--at:0.5000;" in section.body


def test_exports_show_whatever_their_record_holds():
    entry = {
        "format": "onnx",
        "passed": True,
        "largest_difference": 5e-8,
        "metric": {"name": "accuracy", "before": 0.9, "after": 0.9},
        "latency_ms": {"batch_1": {"median": 1.5, "p95": 2.0}},
        "not known": ["a", "b"],
    }

    section = export_section(build_record(build_answers(), exports=[entry, {"format": "torchscript"}]))

    for text in ("onnx", "torchscript", "5e-08", "latency ms, batch 1, median", "1.5", "2: a, b"):
        assert text in section.body


def test_without_exports_there_is_no_section_of_them(page):
    assert 'id="exports"' not in page


def test_a_column_of_texts_sorts_as_text_and_one_of_numbers_as_numbers():
    table = draw_table([Column("name"), Column("count")], [[Cell("a", "a"), Cell("1,000", 1000)]], label="t")

    assert re.findall(r'<th scope="col" class="(\w+)"', table) == ["text", "number"]
    assert 'data-value="1000"' in table


def test_a_page_stops_taking_pictures_when_it_is_full():
    small = Image.new("RGB", (2, 2))
    book = PictureBook(lambda number: small, str, lambda number: None)

    first = book.add(range(MOST - 1))
    second = book.add([0, 4000, 4001, 4002])

    assert len(first) == MOST - 1
    assert second == [0, 4000]
    assert len(book.examples) == MOST


def test_thumbnails_keep_the_shape_of_large_pictures():
    noise = np.random.default_rng(0).integers(0, 256, (300, 600, 3), dtype=np.uint8)
    book = PictureBook(lambda number: Image.fromarray(noise), lambda number: "a.png", lambda number: None)

    book.add([0])

    example = book.examples[0]
    content = base64.b64decode(example.source.removeprefix("data:image/webp;base64,"))
    assert example.size == (600, 300)
    assert Image.open(BytesIO(content)).size == (128, 64)


def test_a_picture_that_cannot_be_read_leaves_a_gap():
    def refuse(number):
        raise DataError("gone")

    book = PictureBook(refuse, lambda number: "a.png", lambda number: None)

    assert book.add([0]) == [0]
    assert book.examples[0].source == ""
