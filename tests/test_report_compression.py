"""The table of smaller embeddings: figures as they were measured, and the one that is worth taking."""

import pytest

from hf_tasks.report.compression import compression_section

FULL = {"dimensions": 256, "precision": "fp32", "bytes": 1024, "recall_at_1": 0.9, "queries": 2000}
NBSP = "\N{NO-BREAK SPACE}"


def _entry(dimensions, precision, size, recall):
    return {**FULL, "dimensions": dimensions, "precision": precision, "bytes": size, "recall_at_1": recall}


def test_each_row_says_what_it_saves_and_what_it_costs():
    table = [FULL, _entry(64, "fp32", 256, 0.85)]

    section = compression_section({"compression": table})

    assert "2,000 queries" in section.lead
    for text in ("1,024", f"1.02{NBSP}GB", f"90{NBSP}%", "256", f"256{NBSP}MB", f"85{NBSP}%", "-5.0"):
        assert f">{text}<" in section.body


@pytest.mark.parametrize(
    ("recall", "advice"),
    [
        (0.89, "256 dimensions in binary, 3.1"),  # one point less is still within
        (0.8899, "64 dimensions in fp32, 25"),
    ],
)
def test_the_smallest_that_costs_little_is_named(recall, advice):
    table = [FULL, _entry(64, "fp32", 256, 0.895), _entry(256, "binary", 32, recall)]

    section = compression_section({"compression": table})

    assert advice + f"{NBSP}% of the bytes." in section.lead


def test_where_every_smaller_one_costs_much_that_is_said():
    section = compression_section({"compression": [FULL, _entry(32, "fp32", 128, 0.7)]})

    assert "None of the smaller ones stays within one percentage point" in section.lead


def test_without_known_queries_there_is_no_section():
    assert compression_section({"compression": []}).body == ""
