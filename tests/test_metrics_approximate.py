"""FAISS against the exact search."""

import numpy as np
import pytest

from hf_tasks.metrics.approximate import ApproximateSearch
from hf_tasks.metrics.neighbours import nearest_neighbours
from hf_tasks.metrics.retrieval import NOBODY, LabelledEmbeddings, average_scores, score_queries


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(40, 16))
    return (centres[np.arange(2_000) % 40] + 0.5 * generator.normal(size=(2_000, 16))).astype(np.float32)


def test_neighbours_in_the_cells_looked_through_are_found_with_their_cosines(rows):
    pytest.importorskip("faiss")
    search = ApproximateSearch(rows[:1_500])

    places, cosines = search(rows[1_500:], count=5)

    exact_places, exact_cosines = nearest_neighbours(rows[1_500:], rows[:1_500], count=5)
    shared = [len(set(ours) & set(theirs)) for ours, theirs in zip(places, exact_places, strict=True)]
    assert search.recall(rows[1_500:], count=5) == pytest.approx(np.sum(shared) / 2_500)
    assert np.sum(shared) / 2_500 > 0.9
    same = (places == exact_places).all(axis=1)
    np.testing.assert_allclose(cosines[same], exact_cosines[same], atol=1e-5)


def test_a_query_whose_cells_hold_too_few_is_searched_exactly(rows):
    pytest.importorskip("faiss")

    places, _ = ApproximateSearch(rows[:1_500])(rows[1_500:1_510], count=1_000)

    assert places.shape == (10, 1_000)
    np.testing.assert_array_equal(places, nearest_neighbours(rows[1_500:1_510], rows[:1_500], count=1_000)[0])


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
    assert 0.9 < share <= 1
    assert average_scores(found) == pytest.approx(average_scores(exact), abs=0.05)
    assert not (found.neighbours_QK == own_rows[:, None]).any()
    same_group = groups[found.neighbours_QK] == groups[:200, None]
    assert not (same_group & (groups[:200, None] != NOBODY)).any()
    np.testing.assert_array_equal(found.matches_Q, exact.matches_Q)
