"""The cut-off against a plain search over all distances, and on fresh data with planted unknown classes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from hf_tasks.metrics.cutoff import figures_at_cutoff, fit_cutoff, impostor_distances
from hf_tasks.metrics.retrieval import NOBODY, LabelledEmbeddings, score_queries


def _scores(generator, *, centres, known, unknown, per_class, noise=0.5, queries_per_class=None):
    """A gallery of the first `known` classes, and queries of those and of the next `unknown` classes."""
    width = centres.shape[1]

    def draw(labels):
        return (centres[labels] + noise * generator.normal(size=(len(labels), width))).astype(np.float32)

    gallery_labels = np.repeat(np.arange(known), per_class)
    query_labels = np.repeat(np.arange(known + unknown), queries_per_class or per_class)
    return score_queries(
        LabelledEmbeddings(draw(query_labels), query_labels),
        LabelledEmbeddings(draw(gallery_labels), gallery_labels),
    )


def _small_scores(seed):
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(7, 3))
    unknown = int(generator.integers(0, 3))
    return _scores(generator, centres=centres, known=4, unknown=unknown, per_class=5, noise=0.7)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_other_distance_has_a_better_balanced_accuracy(seed):
    scores = _small_scores(seed)
    impostors, _ = impostor_distances(scores)
    nearest = 1 - scores.neighbour_cosines_QK[:, 0]
    right = nearest[scores.first_match_rank_Q == 1]
    known = (scores.matches_Q > 0).sum()

    def balanced_accuracy(distance):
        return ((right <= distance).sum() / known + (impostors > distance).mean()) / 2

    cutoff = fit_cutoff(scores)

    tried = np.concatenate([[-1], impostors, right])
    best = max(balanced_accuracy(distance) for distance in tried)
    assert balanced_accuracy(cutoff.distance) == pytest.approx(best, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), rate=st.sampled_from([0.0, 0.05, 0.3, 0.99]))
def test_the_largest_cutoff_that_keeps_a_rate_is_taken(seed, rate):
    scores = _small_scores(seed)
    impostors, _ = impostor_distances(scores)

    cutoff = fit_cutoff(scores, false_accept_rate=rate)

    assert (impostors <= cutoff.distance).mean() <= rate
    above = impostors[impostors > cutoff.distance]
    assert len(above) == 0 or (impostors <= above.min()).mean() > rate


@pytest.mark.parametrize("validation_has_unknown", [True, False])
def test_a_wanted_false_accept_rate_holds_on_fresh_data_with_planted_unknown_classes(validation_has_unknown):
    generator = np.random.default_rng(0)
    rate, width = 0.05, 16
    unknown = 100 if validation_has_unknown else 0
    validation = _scores(
        generator, centres=generator.normal(size=(300, width)), known=100, unknown=2 * unknown, per_class=10
    )
    fresh = _scores(
        generator,
        centres=generator.normal(size=(400, width)),
        known=100,
        unknown=300,
        per_class=10,
        queries_per_class=1,
    )

    cutoff = fit_cutoff(validation, false_accept_rate=rate)
    found = figures_at_cutoff(fresh, cutoff.distance)["false_accept_rate"]

    # A class has one picture among the fresh ones, so they are independent; 99.9 % interval of 300 draws.
    low, high = binom.interval(0.999, 300, rate)
    assert low <= found * 300 <= high
    assert cutoff.from_unknown_queries == validation_has_unknown
    assert cutoff.impostors == (2000 if validation_has_unknown else 1000)


def test_shares_at_a_cutoff_by_hand():
    degrees = np.radians([0, 90])
    gallery = LabelledEmbeddings(np.stack([np.cos(degrees), np.sin(degrees)], axis=1), np.array([0, 1]))
    query_degrees = np.radians([10, 40, 80, 85])
    queries = LabelledEmbeddings(
        np.stack([np.cos(query_degrees), np.sin(query_degrees)], axis=1), np.array([0, 0, 0, 5])
    )

    scores = score_queries(queries, gallery)
    figures = figures_at_cutoff(scores, 1 - np.cos(np.radians(20)))

    # 10 degrees off: accepted, right. 40: refused. 10 off, the other class: wrong. 5 off, unknown: wrong.
    assert figures == pytest.approx(
        {
            "accepted": 3 / 4, "rejected": 1 / 4, "wrong": 2 / 4,
            "true_accept_rate": 1 / 3, "false_accept_rate": 1,
        }
    )  # fmt: skip
    # The distance of the nearest query itself is within the cut-off.
    assert figures_at_cutoff(scores, 1 - scores.neighbour_cosines_QK[3, 0])["accepted"] == 1 / 4


def test_a_query_that_is_left_nothing_to_compare_with_is_no_impostor():
    vectors = np.eye(3)
    gallery = LabelledEmbeddings(vectors, np.array([0, 0, 1]), np.array([5, 5, 5]))
    queries = LabelledEmbeddings(vectors[:2], np.array([0, 0]), np.array([5, NOBODY]))

    cutoff = fit_cutoff(score_queries(queries, gallery))

    assert (cutoff.impostors, cutoff.from_unknown_queries) == (1, False)


def test_a_single_class_leaves_nothing_to_refuse():
    pictures = LabelledEmbeddings(np.eye(3), np.zeros(3, np.int64))

    with pytest.raises(ValueError, match="wanted two classes at least"):
        fit_cutoff(score_queries(pictures, pictures, own_rows_Q=np.arange(3)))
