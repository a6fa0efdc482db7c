"""Recall@1 of smaller embeddings, against searches written out plainly."""

import numpy as np
import pytest

from hf_tasks.metrics.compression import compression_table, principal_components, quantise, smaller_widths
from hf_tasks.metrics.retrieval import LabelledEmbeddings


@pytest.fixture(scope="module")
def sides():
    """Overlapping classes in 48 numbers."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(20, 48))
    labels = np.arange(600) % 20
    rows = (centres[labels] + 2 * generator.normal(size=(600, 48))).astype(np.float32)
    return LabelledEmbeddings(rows[:200], labels[:200]), LabelledEmbeddings(rows[200:], labels[200:])


def _units(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _recall(queries, gallery, ours, theirs):
    nearest = (_units(ours.astype(np.float64)) @ _units(theirs.astype(np.float64)).T).argmax(axis=1)
    return (gallery.labels_N[nearest] == queries.labels_N).mean()


def test_each_row_is_the_recall_of_a_plain_search(sides):
    ours, theirs = (_units(side.embeddings_ND) for side in sides)

    table = compression_table(*sides)

    turn = np.linalg.svd(theirs, full_matrices=False)[2].T[:, :32]  # singular vectors are principal axes
    steps = [np.round(rows * 127 / np.abs(theirs).max()).clip(-127, 127) for rows in (ours, theirs)]
    expected = {
        (48, "fp32", 192): _recall(*sides, ours, theirs),
        (32, "fp32", 128): _recall(*sides, ours @ turn, theirs @ turn),
        (48, "fp16", 96): _recall(*sides, ours.astype(np.float16), theirs.astype(np.float16)),
        (48, "int8", 48): _recall(*sides, *steps),
        (48, "binary", 6): _recall(*sides, np.sign(ours), np.sign(theirs)),
    }
    found = {(row["dimensions"], row["precision"], row["bytes"]): row["recall_at_1"] for row in table}
    assert found == pytest.approx(expected, abs=0.006)  # a tie of signs may be broken either way
    assert found[48, "binary", 6] < found[48, "fp32", 192]
    assert {row["queries"] for row in table} == {200}


def test_the_first_components_hold_all_of_rows_that_have_no_more():
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(300, 3)) @ generator.normal(size=(3, 10))

    components = principal_components(rows)

    kept = rows @ components[:, :3]
    np.testing.assert_allclose(kept @ kept.T, rows @ rows.T, atol=1e-3)
    np.testing.assert_allclose(components.T @ components, np.eye(10), atol=1e-6)


def test_widths_are_powers_of_two_below_the_full_one():
    assert list(smaller_widths(256)) == [32, 64, 128]
    assert list(smaller_widths(257))[-1] == 256
    assert list(smaller_widths(16)) == []


def test_numbers_larger_than_those_of_the_gallery_are_cut_off():
    found = quantise(np.array([[0.5, -0.25, 0.75]]), "int8", largest=0.5)

    assert found.tolist() == [[127, -64, 127]]


def test_a_few_evenly_spaced_queries_stand_for_many(sides):
    table = compression_table(*sides, limit=50)

    assert table[0]["queries"] == 50


def test_queries_of_unknown_classes_leave_no_table():
    gallery = LabelledEmbeddings(np.eye(4), np.arange(4))

    assert compression_table(LabelledEmbeddings(np.eye(4), np.arange(4) + 9), gallery) == []
