"""Which exported file a budget chooses."""

import re
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from hf_tasks.errors import ExportError
from hf_tasks.export.choose import Budget, choose_format
from hf_tasks.export.latency import Latency, measure_latency
from hf_tasks.export.parity import Metric, Parity, Record, parity_table


def record(name, *, milliseconds, accuracy, passed=True):
    return Record(
        format=name,
        file=f"export/{name}/model.onnx",
        passed=passed,
        reason=None if passed else "outputs differ",
        examples=10,
        largest_difference=0.0,
        mean_difference=0.0,
        agreement=1.0,
        metric=Metric("accuracy", 0.9, accuracy),
        latency_ms={1: Latency(milliseconds, milliseconds), 32: Latency(9.0, 9.0)},
    )


EXACT_INPUT = np.zeros((1, 2), np.float32)
EXACT = record("onnx", milliseconds=10, accuracy=0.9)
HALF = record("onnx-fp16", milliseconds=8, accuracy=0.899)
SMALL = record("onnx-int8", milliseconds=4, accuracy=0.88)


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        (Budget(latency_ms=20), EXACT),  # all are fast enough: the most accurate
        (Budget(latency_ms=9), HALF),
        (Budget(max_metric_loss=0.005), HALF),  # a loss of 0.001 counts as none: the fastest
        (Budget(max_metric_loss=0.05), SMALL),
        (Budget(max_metric_loss=0.015), HALF),  # 0.02 is too much
        (Budget(latency_ms=20, max_metric_loss=0.0005), EXACT),
    ],
)
def test_the_budget_decides(budget, chosen):
    assert choose_format([EXACT, HALF, SMALL], budget) == chosen


def test_a_refused_file_is_never_chosen():
    refused = record("onnx-int8", milliseconds=1, accuracy=0.9, passed=False)

    assert choose_format([EXACT, refused], Budget(latency_ms=20)) == EXACT


def test_a_budget_that_nothing_fits_tells_what_was_measured():
    with pytest.raises(ExportError, match=r"(?s)no format fits.*onnx: 10.00 ms, accuracy loses 0.0000"):
        choose_format([EXACT, HALF], Budget(latency_ms=1))


def test_only_the_chosen_record_is_marked(tmp_path):
    parity = Parity((EXACT, SMALL), of_rows=10).choose(SMALL)

    assert [item.chosen for item in parity.records] == [False, True]


def test_formats_that_are_exported_later_join_the_earlier_ones(tmp_path):
    Parity((EXACT, HALF), of_rows=10).choose(HALF).write(tmp_path / "parity.json")

    Parity((SMALL,), of_rows=10).write(tmp_path / "parity.json")

    text = (tmp_path / "parity.json").read_text()
    assert [text.count(f'"format": "{name}"') for name in ("onnx", "onnx-fp16", "onnx-int8")] == [1, 1, 1]
    assert '"chosen": true' not in text  # a choice was among files measured together


def test_latency_is_measured_for_one_and_for_thirty_two():
    seen = set()

    found = measure_latency(lambda inputs: seen.add(len(inputs["x"])), {"x": EXACT_INPUT})

    assert seen == {1, 32}
    assert all(0 <= latency.median <= latency.p95 for latency in found.values())


def test_the_table_has_a_line_a_file_and_fits_a_terminal():
    longest = replace(EXACT, format="torchscript-end-to-end", chosen=True, largest_difference=5.2e-4)
    refused = replace(SMALL, format="torchao-int8", passed=False, agreement=0.99999)
    console = Console(width=80, record=True, file=StringIO())
    table = parity_table(Parity((longest, refused), of_rows=10, reference_latency_ms=EXACT.latency_ms))

    console.print(table)
    printed = console.export_text()

    assert table.row_count == 2
    assert "10 of 10 validation examples" in printed
    assert "…" not in printed
    assert re.search(r"torchscript-end-to-end \* +good +5\.2e-04 +100% ", printed)
    assert re.search(r"torchao-int8 +refused .* 99\.99% ", printed)  # what is not all is never 100 %
