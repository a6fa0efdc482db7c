"""Pair figures against scikit-learn, SciPy and plain loops."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from hf_tasks.metrics.pairs import (
    compute_labelled_pairs,
    compute_retrieval,
    compute_scored_pairs,
    compute_triplets,
    fit_threshold,
    partner_ranks,
)


@pytest.fixture
def noisy():
    """Scores, rounded so that some are equal, and labels that they half tell."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 200)
    return np.round(labels * 0.3 + generator.normal(size=200), 1), labels


def test_figures_of_labelled_pairs_are_those_of_scikit_learn(noisy):
    scores, labels = noisy

    found = compute_labelled_pairs(scores, labels, threshold=0.2)

    called = scores >= 0.2
    assert found["average_precision"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, called))
    assert found["f1"] == pytest.approx(f1_score(labels, called))
    assert found["threshold"] == 0.2


def test_the_fitted_threshold_has_the_best_f1_of_all(noisy):
    scores, labels = noisy

    threshold = fit_threshold(scores, labels)

    best = max(f1_score(labels, scores >= value) for value in np.unique(scores))
    assert f1_score(labels, scores >= threshold) == pytest.approx(best)


@pytest.mark.parametrize(
    ("scores", "labels", "wanted"),
    [
        ([0.9, 0.8, 0.4, 0.2], [1, 1, 0, 0], 0.6),
        ([0.9, 0.5, 0.5, 0.2], [1, 1, 0, 0], 0.35),  # F1 2/3, 4/5, 2/3: the equal ones go together
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 0, 1], 0.85),  # F1 2/3, 1/2, 2/5, 2/3: the first of the best
        ([0.4, 0.3], [1, 1], 0.3),  # nothing is below
    ],
)
def test_the_fitted_threshold_lies_half_way(scores, labels, wanted):
    threshold = fit_threshold(np.array(scores), np.array(labels))

    assert threshold == pytest.approx(wanted)


def test_ranking_figures_of_one_kind_of_pairs_alone_are_not_defined():
    found = compute_labelled_pairs(np.array([0.1, 0.2]), np.array([0, 0]), threshold=0.5)

    assert found["average_precision"] is None
    assert found["roc_auc"] is None
    assert found["f1"] == 0.0


def test_spearman_is_that_of_scipy(noisy):
    scores, _ = noisy
    wanted = scores**3 + np.arange(200) / 50

    found = compute_scored_pairs(scores, wanted)

    assert found["spearman"] == pytest.approx(spearmanr(scores, wanted).statistic)
    assert compute_scored_pairs(np.ones(3), np.arange(3.0))["spearman"] is None


def test_retrieval_is_that_of_a_plain_loop(monkeypatch):
    generator = np.random.default_rng(1)
    queries, candidates = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for rows in (generator.normal(size=(size, 4)).astype(np.float32) for size in (9, 12))
    )
    query_P = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 3])
    candidate_P = np.array([3, 1, 2, 0, 11, 5, 9, 7, 8, 4, 10])
    monkeypatch.setattr("hf_tasks.metrics.pairs.QUERIES_AT_ONCE", 4)

    found = compute_retrieval(
        partner_ranks(queries, candidates, query_P=query_P, candidate_P=candidate_P), candidates=12
    )

    ranks = []
    for query in range(9):
        order = np.argsort(-(candidates @ queries[query])).tolist()
        true = set(candidate_P[query_P == query].tolist())
        ranks.append(1 + min(order.index(candidate) for candidate in true))
    assert found["mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert found["recall_at_1"] == np.mean([rank == 1 for rank in ranks])
    assert found["recall_at_10"] == np.mean([rank <= 10 for rank in ranks])


def test_an_encoder_that_gives_every_text_the_same_embedding_is_not_flattered():
    same = np.tile(np.array([[1.0, 0.0]], np.float32), (5, 1))

    ranks = partner_ranks(same, same, query_P=np.arange(5), candidate_P=np.arange(5))

    assert ranks.tolist() == [5] * 5


def test_a_triplet_counts_only_when_the_true_text_is_nearer():
    found = compute_triplets(np.array([0.9, 0.5, 0.1]), np.array([0.1, 0.5, 0.9]))

    assert found == {"triplet_accuracy": pytest.approx(1 / 3)}


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 2 pairs, first in pair 1"):
        compute_labelled_pairs(np.array([0.1, np.nan]), np.array([0, 1]), threshold=0.5)


def test_a_threshold_needs_a_true_pair():
    with pytest.raises(ValueError, match="no true pair"):
        fit_threshold(np.array([0.1]), np.array([0]))
