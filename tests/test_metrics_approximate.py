"""FAISS against the exact search."""

import numpy as np
import pytest

from hf_tasks.metrics.approximate import ApproximateSearch
from hf_tasks.metrics.neighbours import nearest_neighbours


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
