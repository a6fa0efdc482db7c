"""Intervals of searches, pairs and language models, against the same draws worked out row by row."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from hf_tasks.metrics.bootstrap import interval_ends
from hf_tasks.metrics.cutoff import figures_at_cutoff
from hf_tasks.metrics.language import compute_language, language_intervals
from hf_tasks.metrics.pair_intervals import (
    labelled_pair_intervals,
    partner_intervals,
    scored_pair_intervals,
    triplet_intervals,
)
from hf_tasks.metrics.pairs import compute_labelled_pairs, compute_scored_pairs, compute_triplets
from hf_tasks.metrics.retrieval import LabelledEmbeddings, average_scores, score_queries
from hf_tasks.metrics.retrieval_intervals import retrieval_intervals


def _slowly(figures, count):
    """The intervals of figures(row numbers), each draw as rows that stand there as often as drawn."""
    generator, drawn = np.random.default_rng(0), {}
    for _ in range(1000):
        for name, value in figures(generator.integers(0, count, count, dtype=np.int32)).items():
            drawn.setdefault(name, []).append(np.nan if value is None else value)
    return {name: np.nanpercentile(values, [2.5, 97.5]).tolist() for name, values in drawn.items()}


def _assert_same(found, expected):
    found = interval_ends(found)
    assert set(found) == set(expected)
    for name, ends in expected.items():
        assert found[name] == pytest.approx(ends, abs=1e-9), name


def test_intervals_of_a_search_are_those_of_its_queries_drawn_again():
    generator = np.random.default_rng(0)
    labels, classes = np.arange(60) % 6, np.arange(40) % 5
    centres = generator.normal(size=(6, 8))
    queries, gallery = (
        LabelledEmbeddings(centres[which] + generator.normal(size=(len(which), 8)), which)
        for which in (labels, classes)
    )
    scores = score_queries(queries, gallery, ks=(1, 5))

    found = retrieval_intervals(scores, distance=0.3)

    def figures(rows):
        return average_scores(scores.select(rows)) | figures_at_cutoff(scores.select(rows), 0.3)

    _assert_same(found, _slowly(figures, 60))
    assert set(interval_ends(found)) == set(figures(np.arange(60)))


def test_a_search_of_strangers_alone_has_intervals_at_its_cutoff():
    queries = LabelledEmbeddings(np.eye(4), np.arange(4) + 10)
    scores = score_queries(queries, LabelledEmbeddings(np.eye(4)[:2], np.arange(2)), ks=(1,))

    found = interval_ends(retrieval_intervals(scores, distance=0.5))

    assert set(found) == {"accepted", "rejected", "wrong", "false_accept_rate"}
    assert found["accepted"][0] <= 0.5 <= found["accepted"][1]


@pytest.fixture(scope="module")
def noisy():
    """Scores, rounded so that some are equal, and labels that they half tell."""
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 80)
    return np.round(labels + generator.normal(size=80), 1), labels


def test_intervals_of_labelled_pairs_are_those_of_scikit_learn(noisy):
    scores, labels = noisy

    found = labelled_pair_intervals(scores, labels, threshold=0.5)

    def figures(rows):
        called = scores[rows] >= 0.5
        counted = compute_labelled_pairs(scores[rows], labels[rows], threshold=0.5)
        return {
            "average_precision": average_precision_score(labels[rows], scores[rows]),
            "roc_auc": roc_auc_score(labels[rows], scores[rows]),
            "f1": f1_score(labels[rows], called),
            **{name: counted[name] for name in ("accuracy", "precision", "recall")},
        }

    _assert_same(found, _slowly(figures, 80))


def test_intervals_of_scored_pairs_are_those_of_scipy(noisy):
    scores, labels = noisy
    wanted = np.round(scores + labels, 0)

    found = scored_pair_intervals(scores, wanted)

    _assert_same(found, _slowly(lambda rows: compute_scored_pairs(scores[rows], wanted[rows]), 80))


def test_intervals_of_partners_and_triplets_are_those_of_means(noisy):
    ranks = np.random.default_rng(2).integers(1, 20, 50)

    found = partner_intervals(ranks)

    def figures(rows):
        return {
            "mrr": np.mean([1 / rank for rank in ranks[rows]]),
            "recall_at_1": np.mean([rank == 1 for rank in ranks[rows]]),
            "recall_at_10": np.mean([rank <= 10 for rank in ranks[rows]]),
        }

    _assert_same(found, _slowly(figures, 50))
    scores, labels = noisy
    told = triplet_intervals(scores, labels * 0.5)
    _assert_same(told, _slowly(lambda rows: compute_triplets(scores[rows], labels[rows] * 0.5), 80))


def test_scores_of_one_kind_of_pairs_alone_have_no_interval_of_their_ranking():
    found = interval_ends(labelled_pair_intervals(np.array([0.1, 0.9]), np.array([0, 0]), threshold=0.5))

    assert found["average_precision"] is None
    assert found["accuracy"] == [0.0, 1.0]


def test_blocks_of_one_document_are_drawn_together():
    generator = np.random.default_rng(3)
    nats, tokens, size = generator.uniform(5, 50, 30), generator.integers(5, 16, 30), np.full(30, 40)
    documents = np.arange(30) // 3

    found = language_intervals(nats, tokens, bytes_N=size, documents_N=documents)

    def figures(drawn):
        blocks = np.concatenate([np.flatnonzero(documents == number) for number in drawn])
        loss = nats[blocks].sum() / tokens[blocks].sum()
        bits = nats[blocks].sum() / math.log(2) / size[blocks].sum()
        return {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": bits}

    _assert_same(found, _slowly(figures, 10))
    assert found["loss"].value == pytest.approx(compute_language(nats, tokens, text_bytes=None)["loss"])


def test_one_document_says_nothing_of_others():
    found = language_intervals(np.ones(3), np.ones(3), bytes_N=None, documents_N=np.zeros(3))

    assert found == {}
