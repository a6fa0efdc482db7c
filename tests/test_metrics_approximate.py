"""FAISS against the exact search."""

import numpy as np
import pytest

from hf_tasks.metrics.approximate import ApproximateSearch
from hf_tasks.metrics.neighbours import nearest_neighbours, unit_rows
from hf_tasks.metrics.retrieval import NOBODY, LabelledEmbeddings, average_scores, score_queries


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(40, 16))
    return (centres[np.arange(2_000) % 40] + 0.5 * generator.normal(size=(2_000, 16))).astype(np.float32)


def test_neighbours_are_found_with_their_cosines_and_the_share_of_true_ones_is_told(rows):
    pytest.importorskip("faiss")
    search = ApproximateSearch(unit_rows(rows[:1_500]).numpy())

    places, cosines = search(rows[1_500:], count=5)

    exact_places, exact_cosines = nearest_neighbours(rows[1_500:], rows[:1_500], count=5)
    shared = [len(set(ours) & set(theirs)) for ours, theirs in zip(places, exact_places, strict=True)]
    assert search.recall(rows[1_500:], count=5) == pytest.approx(np.sum(shared) / 2_500)
    assert np.sum(shared) / 2_500 > 0.99
    same = (places == exact_places).all(axis=1)
    np.testing.assert_allclose(cosines[same], exact_cosines[same], atol=1e-5)


@pytest.mark.parametrize("width", [2, 7, 64])
def test_galleries_of_any_size_and_width_are_searched(width):
    pytest.importorskip("faiss")
    gallery = np.random.default_rng(0).normal(size=(1_200, width)).astype(np.float32)
    queries = np.concatenate([gallery[:3], np.zeros((1, width), np.float32)])  # no code is nearest to zeros

    for size, count in ((1, 9), (999, 4), (1_200, 1_200)):
        places, cosines = ApproximateSearch(unit_rows(gallery[:size]).numpy())(queries, count=count)

        assert places.shape == cosines.shape == (4, min(size, count))
        assert all(len(set(row)) == len(row) for row in places.tolist())
        assert places[:3, 0].tolist() == [min(row, size - 1) for row in range(3)]
        assert cosines[3].tolist() == [0] * len(cosines[3])


def test_scores_of_what_is_found_come_near_the_exact_ones_and_leave_out_the_same(rows):
    pytest.importorskip("faiss")
    labels, groups = np.arange(2_000) % 40, np.where(np.arange(2_000) % 3, NOBODY, np.arange(2_000) // 90)
    gallery = LabelledEmbeddings(rows, labels, groups)
    queries = LabelledEmbeddings(rows[:200], labels[:200], groups[:200])
    own_rows = np.arange(200)

    found, exact = (
        score_queries(queries, gallery, own_rows_Q=own_rows, approximate=approximate)
        for approximate in (True, False)
    )

    share = (exact.neighbours_QK[:, :, None] == found.neighbours_QK[:, None, :]).any(axis=2).mean()
    assert 0.99 < share <= 1
    assert average_scores(found) == pytest.approx(average_scores(exact), abs=0.01)
    assert not (found.neighbours_QK == own_rows[:, None]).any()
    same_group = groups[found.neighbours_QK] == groups[:200, None]
    assert not (same_group & (groups[:200, None] != NOBODY)).any()
    np.testing.assert_array_equal(found.matches_Q, exact.matches_Q)
