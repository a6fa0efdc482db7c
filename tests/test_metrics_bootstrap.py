"""Figures from counts against the metrics of repeated rows; intervals against theory and a plain loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_tasks.metrics.bootstrap import (
    bootstrap,
    mean_figures,
    multiclass_figures,
    multilabel_figures,
    paired_bootstrap,
    ranking_draws,
    ranking_figures,
)
from hf_tasks.metrics.classification import compute_multiclass, compute_multilabel

NAMES = ["a", "b", "c"]
AVERAGES = ("accuracy", "f1_macro", "f1_micro", "f1_weighted")
SEEDS = st.integers(0, 2**32 - 1)


def _answers(seed, count, *, is_multilabel=False):
    generator = np.random.default_rng(seed)
    probabilities = generator.integers(0, 9, (count, 3)) / 8
    labels = generator.integers(0, 2, (count, 3)) if is_multilabel else generator.integers(0, 3, count)
    return probabilities, labels, generator.integers(0, 4, count)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 30))
def test_counting_a_row_twice_is_having_it_twice(seed, count):
    probabilities, labels, counts = _answers(seed, count)
    counts[0] = 1

    figures = multiclass_figures(labels, probabilities.argmax(1), classes=3)(counts.astype(float))

    rows = np.repeat(np.arange(count), counts)
    expected = compute_multiclass(probabilities[rows], labels[rows], class_names=NAMES)
    assert {name: figures[name] for name in AVERAGES} == pytest.approx(
        {name: expected[name] for name in AVERAGES}, abs=1e-12
    )
    assert figures["f1"].tolist() == pytest.approx([expected["per_class"][name]["f1"] for name in NAMES])


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 30))
def test_counting_a_row_of_several_classes_twice_is_having_it_twice(seed, count):
    probabilities, labels, counts = _answers(seed, count, is_multilabel=True)
    counts[0] = 1

    decided = multilabel_figures(labels, probabilities >= 0.5)(counts.astype(float))
    ranked = ranking_figures(probabilities, labels)(counts.astype(float))

    rows = np.repeat(np.arange(count), counts)
    expected = compute_multilabel(probabilities[rows], labels[rows], class_names=NAMES)
    assert {name: decided[name] for name in AVERAGES} == pytest.approx(
        {name: expected[name] for name in AVERAGES}, abs=1e-6
    )
    for name in ("average_precision", "roc_auc"):
        wanted = np.nan if expected[name] is None else expected[name]
        assert ranked[name] == pytest.approx(wanted, abs=1e-12, nan_ok=True)


def test_the_interval_of_accuracy_is_that_of_the_binomial_distribution():
    labels = np.zeros(400, dtype=np.int64)
    decisions = (np.arange(400) < 80).astype(np.int64)  # 80 % right

    interval = bootstrap(multiclass_figures(labels, decisions, classes=2), 400)["accuracy"]

    half_width = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert interval.value == 0.8
    assert interval.low == pytest.approx(0.8 - half_width, abs=0.006)  # 1000 draws are known to about this
    assert interval.high == pytest.approx(0.8 + half_width, abs=0.006)


def test_intervals_agree_with_a_plain_loop_over_resampled_rows():
    generator = np.random.default_rng(3)
    probabilities = generator.random((150, 3))
    labels = np.where(generator.random(150) < 0.7, probabilities.argmax(1), generator.integers(0, 3, 150))

    interval = bootstrap(multiclass_figures(labels, probabilities.argmax(1), classes=3), 150)["f1_macro"]

    drawn = []
    for _ in range(1000):
        rows = generator.integers(0, 150, 150)
        metrics = compute_multiclass(probabilities[rows], labels[rows], class_names=NAMES)
        drawn.append(metrics["f1_macro"])
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert interval.low == pytest.approx(low, abs=0.01)
    assert interval.high == pytest.approx(high, abs=0.01)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(4).normal(2.0, 0.5, 900)

    interval = bootstrap(mean_figures({"loss": values}), 900)["loss"]

    half_width = 1.96 * values.std() / 30
    assert interval.value == pytest.approx(values.mean(), abs=1e-12)
    assert (interval.low, interval.high) == pytest.approx(
        (values.mean() - half_width, values.mean() + half_width), abs=0.004
    )


def test_the_same_seed_gives_the_same_interval_and_another_a_near_one():
    figures = mean_figures({"loss": np.random.default_rng(5).random(100)})

    first, again, other = (bootstrap(figures, 100, seed=seed)["loss"] for seed in (0, 0, 1))

    assert (first.low, first.high) == (again.low, again.high)
    assert first.low != other.low
    assert first.low == pytest.approx(other.low, abs=0.01)


def test_pairing_cancels_what_is_hard_for_both():
    generator = np.random.default_rng(6)
    labels = np.zeros(500, dtype=np.int64)
    before = (generator.random(500) < 0.4).astype(np.int64)
    after = before.copy()
    after[np.flatnonzero(before)[:10]] = 0  # ten mended, none broken

    difference = paired_bootstrap(
        multiclass_figures(labels, before, classes=2), multiclass_figures(labels, after, classes=2), 500
    )["accuracy"]

    alone = bootstrap(multiclass_figures(labels, before, classes=2), 500)["accuracy"]
    assert difference.second - difference.first == pytest.approx(10 / 500)
    assert difference.low > 0  # better in almost every draw, though the two intervals overlap widely
    assert difference.high - difference.low < (alone.high - alone.low) / 3


def test_a_run_compared_with_itself_differs_by_nothing():
    figures = multiclass_figures(np.array([0, 1, 1]), np.array([0, 1, 0]), classes=2)

    difference = paired_bootstrap(figures, figures, 3)["f1_macro"]

    assert difference.first == difference.second
    assert (difference.low, difference.high) == (0, 0)


def test_a_score_that_is_never_defined_has_no_interval():
    figures = ranking_figures(np.array([[0.2], [0.3]]), np.zeros((2, 1)))

    interval = bootstrap(figures, 2, draws=5)["average_precision"]

    assert np.isnan([interval.value, interval.low, interval.high]).all()


def test_large_rankings_are_drawn_less_often():
    assert (ranking_draws(360, 3), ranking_draws(100_000, 20), ranking_draws(100_000, 1000)) == (
        1000,
        200,
        100,
    )
