"""Calibration figures against plain loops and scikit-learn; temperature and thresholds against searches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, f1_score, log_loss, precision_recall_curve

from hf_tasks.metrics.calibration import (
    adaptive_calibration_error,
    brier_score,
    claims,
    cross_fit,
    expected_calibration_error,
    f1_thresholds,
    fit_temperature,
    fold_numbers,
    measure_calibration,
    precision_thresholds,
    reliability_bins,
)

SEEDS = st.integers(0, 2**32 - 1)


def _overconfident(seed, *, count=600, classes=4, sharpness=3.0):
    """Logits that are `sharpness` times what would be honest, and labels drawn from the honest ones."""
    generator = np.random.default_rng(seed)
    honest = generator.normal(0, 1.5, (count, classes))
    labels = np.array([generator.choice(classes, p=row) for row in softmax(honest, axis=1)])
    return honest * sharpness, labels


def _scores(seed, count):
    """Few distinct probabilities, so that equal ones are frequent, and truth."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 9, count) / 8, generator.integers(0, 2, count)


def test_ece_is_the_one_counted_by_hand():
    probabilities = np.array([0.9, 0.92, 0.55])
    is_true = np.array([True, False, True])

    error = expected_calibration_error(probabilities, is_true)

    # 0.9 and 0.92 share the bin from 13/15 to 14/15: |0.91 - 0.5|; 0.55 is alone in its own: |0.55 - 1|.
    assert error == pytest.approx((2 * 0.41 + 0.45) / 3, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 200))
def test_ece_agrees_with_the_curve_of_scikit_learn(seed, count):
    generator = np.random.default_rng(seed)
    probabilities, is_true = generator.random(count), generator.random(count) < 0.5

    bins = reliability_bins(probabilities, is_true)

    shares, means = calibration_curve(is_true, probabilities, n_bins=15)
    np.testing.assert_allclose([row["share"] for row in bins], shares, atol=1e-12)
    np.testing.assert_allclose([row["probability"] for row in bins], means, atol=1e-12)
    assert sum(row["count"] for row in bins) == count


def test_certainty_falls_into_the_last_bin():
    bins = reliability_bins(np.array([1.0, 0.0]), np.array([True, False]))

    assert [(row["low"], row["high"]) for row in bins] == [(0.0, 1 / 15), (14 / 15, 1.0)]


def test_adaptive_error_compares_bins_of_equal_count():
    probabilities = np.arange(30) / 100
    is_true = np.arange(30) % 3 == 0

    error = adaptive_calibration_error(probabilities, is_true)

    gaps = []
    for start in range(0, 30, 2):  # 15 bins of two claims each
        claimed = sum(probabilities[start : start + 2]) / 2
        gaps.append(abs(claimed - sum(is_true[start : start + 2]) / 2))
    assert error == pytest.approx(sum(gaps) / 15, abs=1e-12)


def test_adaptive_error_of_fewer_claims_than_bins_takes_each_by_itself():
    assert adaptive_calibration_error(np.array([0.8, 0.3]), np.array([True, False])) == pytest.approx(0.25)


def test_brier_score_of_classes_sums_over_them():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    labels = np.array([0, 1])

    score = brier_score(probabilities, labels)

    by_hand = ((0.3**2 + 0.2**2 + 0.1**2) + (0.1**2 + 0.9**2 + 0.8**2)) / 2
    assert score == pytest.approx(by_hand, abs=1e-12)
    assert score == pytest.approx(brier_score_loss(labels, probabilities, labels=[0, 1, 2]), abs=1e-12)


def test_brier_score_of_presences_is_the_mean_over_classes():
    probabilities, labels = np.array([[0.9, 0.4], [0.2, 0.7]]), np.array([[1, 0], [1, 1]], dtype=np.float32)

    score = brier_score(probabilities, labels)

    columns = [brier_score_loss(labels[:, i], probabilities[:, i]) for i in range(2)]
    assert score == pytest.approx(np.mean(columns), abs=1e-12)


def test_claims_of_presences_are_all_of_them():
    probabilities, labels = np.array([[0.9, 0.4], [0.2, 0.7]]), np.array([[1, 0], [1, 1]], dtype=np.float32)

    claimed, is_true = claims(probabilities, labels)

    assert claimed.tolist() == [0.9, 0.4, 0.2, 0.7]
    assert is_true.tolist() == [True, False, True, True]


def test_temperature_is_the_one_a_search_over_a_grid_finds():
    logits, labels = _overconfident(0)

    temperature = fit_temperature(logits, labels)

    grid = np.exp(np.linspace(np.log(0.5), np.log(10), 4001))
    losses = [log_loss(labels, softmax(logits / value, axis=1)) for value in grid[::40]]
    assert temperature == pytest.approx(grid[::40][np.argmin(losses)], rel=0.04)  # the grid's own step
    assert log_loss(labels, softmax(logits / temperature, axis=1)) <= min(losses) + 1e-9
    assert temperature == pytest.approx(3.0, rel=0.15)  # the true one, but for 600 examples


def test_temperature_lowers_the_calibration_error():
    logits, labels = _overconfident(1)

    temperature = fit_temperature(logits, labels)

    before = measure_calibration(softmax(logits, axis=1), labels)
    after = measure_calibration(softmax(logits / temperature, axis=1), labels)
    assert after["ece"] < before["ece"] / 3
    assert after["brier"] < before["brier"]


def test_temperature_of_presences_is_the_one_a_search_over_a_grid_finds():
    generator = np.random.default_rng(2)
    honest = generator.normal(0, 2, (800, 3))
    labels = (generator.random((800, 3)) < expit(honest)).astype(np.float32)

    temperature = fit_temperature(honest * 2, labels)

    grid = np.linspace(1, 4, 301)
    losses = [log_loss(labels.ravel(), expit(honest * 2 / value).ravel()) for value in grid]
    assert temperature == pytest.approx(grid[np.argmin(losses)], abs=0.01)


@pytest.mark.parametrize("labels", [np.array([0, 1]), np.array([1, 0])], ids=["all right", "all wrong"])
def test_temperature_stays_1_where_the_loss_has_no_minimum(labels):
    logits = np.array([[2.0, 0.0], [0.0, 2.0]])

    assert fit_temperature(logits, labels) == 1.0


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, count=st.integers(2, 40), classes=st.integers(2, 5))
def test_temperature_never_changes_a_decision_nor_raises_the_loss(seed, count, classes):
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 5, (count, classes)).astype(np.float32)
    labels = generator.integers(0, classes, count)

    temperature = fit_temperature(logits, labels)

    wide = logits.astype(np.float64)
    assert (softmax(wide / temperature, axis=1).argmax(1) == logits.argmax(1)).all()
    loss_before, loss_after = (
        -log_softmax(wide / value, axis=1)[np.arange(count), labels].mean() for value in (1.0, temperature)
    )
    assert loss_after <= loss_before + 1e-9


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 40))
def test_f1_threshold_is_as_good_as_the_best_of_all_thresholds(seed, count):
    probabilities, present = _scores(seed, count)

    threshold = f1_thresholds(probabilities[:, None], present[:, None])[0]

    tried = [*np.unique(probabilities), 1.1]
    best = max(f1_score(present, probabilities >= value, zero_division=0) for value in tried)
    assert f1_score(present, probabilities >= threshold, zero_division=0) == pytest.approx(best, abs=1e-12)


def test_f1_threshold_lies_halfway_to_what_it_leaves_out():
    probabilities = np.array([[0.9], [0.6], [0.2], [0.1]])

    thresholds = f1_thresholds(probabilities, np.array([[1], [1], [0], [0]]))

    assert thresholds.tolist() == [pytest.approx(0.4)]


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 40), wanted=st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_precision_threshold_reaches_the_precision_with_the_highest_recall(seed, count, wanted):
    probabilities, present = _scores(seed, count)
    present[0] = 1

    threshold = precision_thresholds(probabilities[:, None], present[:, None], precision=wanted)[0]

    precisions, recalls, _ = precision_recall_curve(present, probabilities)
    reachable = recalls[:-1][precisions[:-1] >= wanted - 1e-12]
    is_predicted = probabilities >= threshold
    if len(reachable):
        assert present[is_predicted].mean() >= wanted - 1e-12
        assert present[is_predicted].sum() / present.sum() == pytest.approx(reachable.max(), abs=1e-12)
    else:
        assert threshold == 1.0


def test_a_class_that_no_example_has_keeps_the_usual_threshold():
    probabilities, absent = np.array([[0.2], [0.4]]), np.zeros((2, 1))

    assert f1_thresholds(probabilities, absent).tolist() == [0.5]
    assert precision_thresholds(probabilities, absent, precision=0.9).tolist() == [0.5]


def test_cross_fitting_answers_each_example_by_what_the_others_say():
    values = np.arange(11.0)

    answers = cross_fit(
        lambda is_fitted: values[is_fitted].sum(),
        lambda fitted, is_asked: np.full(is_asked.sum(), fitted),
        len(values),
    )

    folds = fold_numbers(11)
    expected = [sum(v for v, f in zip(values, folds, strict=True) if f != fold) for fold in folds]
    assert answers.tolist() == expected
