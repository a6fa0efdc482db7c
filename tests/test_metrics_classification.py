"""Expected values are counted by hand, by slow plain loops, or by scikit-learn where that is another way."""

import json
import subprocess
import sys

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from hf_tasks.errors import UserError
from hf_tasks.metrics.classification import compute_multiclass, compute_multilabel, scalar_metrics
from hf_tasks.metrics.modules import (
    MulticlassClassification,
    MultilabelClassification,
    compute_further,
    load_further_metrics,
)

ABC = ["a", "b", "c"]
# Predicted: a, a, b, a, so three of four are right.
FOUR = np.array([[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.1, 0.7, 0.2], [0.4, 0.3, 0.3]])
FOUR_LABELS = np.array([0, 1, 1, 0])
# Thresholded at 0.5: [1, 0], [1, 1], [0, 0].
PAIRS = np.array([[0.9, 0.2], [0.6, 0.7], [0.3, 0.4]])
PAIRS_LABELS = np.array([[1, 0], [0, 1], [1, 0]])


def _random_multiclass(seed, count, classes):
    generator = np.random.default_rng(seed)
    # Few different values, so that equal probabilities are frequent.
    probabilities = generator.integers(0, 4, (count, classes)) / 4
    return probabilities, generator.integers(0, classes, count)


def _names(classes):
    return [f"class {number}" for number in range(classes)]


def test_multiclass_rates_are_those_counted_by_hand():
    metrics = compute_multiclass(FOUR, FOUR_LABELS, class_names=ABC)

    assert metrics["accuracy"] == 0.75
    assert metrics["confusion_matrix"] == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert metrics["per_class"]["a"] == {"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "support": 2}
    assert metrics["per_class"]["b"] == {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 2}


def test_macro_f1_leaves_out_a_class_that_the_labels_lack():
    metrics = compute_multiclass(FOUR, FOUR_LABELS, class_names=ABC)

    assert metrics["f1_macro"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert metrics["f1_weighted"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert metrics["per_class"]["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_top_5_counts_equal_probabilities_in_the_order_of_the_classes():
    probabilities = np.full((7, 7), 1 / 7)

    metrics = compute_multiclass(probabilities, np.arange(7), class_names=_names(7))

    assert metrics["top_5_accuracy"] == 5 / 7
    assert metrics["accuracy"] == 1 / 7


def test_top_5_is_left_out_when_it_would_always_be_one():
    metrics = compute_multiclass(np.full((1, 5), 0.2), np.array([3]), class_names=_names(5))

    assert "top_5_accuracy" not in metrics


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), classes=st.integers(1, 9))
def test_multiclass_agrees_with_scikit_learn_for_any_input(seed, count, classes):
    probabilities, labels = _random_multiclass(seed, count, classes)

    metrics = compute_multiclass(probabilities, labels, class_names=_names(classes))

    predicted, present = probabilities.argmax(1), np.unique(labels)
    macro = f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    weighted = f1_score(labels, predicted, average="weighted", zero_division=0)
    assert metrics["f1_macro"] == pytest.approx(macro)
    assert metrics["f1_weighted"] == pytest.approx(weighted)
    assert metrics["f1_micro"] == metrics["accuracy"]
    assert all(0 <= value <= 1 for value in scalar_metrics(metrics).values())


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), classes=st.integers(1, 5))
def test_multilabel_agrees_with_scikit_learn_for_any_input(seed, count, classes):
    probabilities, _ = _random_multiclass(seed, count, classes)
    labels = np.random.default_rng(seed + 1).integers(0, 2, (count, classes))

    metrics = compute_multilabel(probabilities, labels, class_names=_names(classes))

    for column, name in enumerate(_names(classes)):
        truth, scores, found = labels[:, column], probabilities[:, column], metrics["per_class"][name]
        assert found["f1"] == pytest.approx(f1_score(truth, scores >= 0.5, zero_division=0))
        if truth.any():
            assert found["average_precision"] == pytest.approx(average_precision_score(truth, scores))
        if truth.any() and not truth.all():
            assert found["roc_auc"] == pytest.approx(roc_auc_score(truth, scores))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_examples_changes_nothing(seed):
    probabilities, labels = _random_multiclass(seed, 30, 6)
    order = np.random.default_rng(seed).permutation(30)
    several = np.eye(6, dtype=int)[labels]

    assert compute_multiclass(probabilities, labels, class_names=_names(6)) == compute_multiclass(
        probabilities[order], labels[order], class_names=_names(6)
    )
    assert compute_multilabel(probabilities, several, class_names=_names(6)) == compute_multilabel(
        probabilities[order], several[order], class_names=_names(6)
    )


def test_multilabel_rates_are_those_counted_by_hand():
    metrics = compute_multilabel(PAIRS, PAIRS_LABELS, class_names=["x", "y"])

    # x ranks present, absent, present: precisions 1/1 and 2/3; one of its two pairs is in order.
    x = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2, "roc_auc": 0.5}
    assert metrics["per_class"]["x"] == x | {"average_precision": pytest.approx((1 + 2 / 3) / 2)}
    assert metrics["per_class"]["y"]["average_precision"] == 1.0
    assert metrics["accuracy"] == pytest.approx(1 / 3)
    assert metrics["f1_micro"] == pytest.approx(4 / 6)
    assert metrics["roc_auc"] == 0.75


def test_a_probability_at_the_threshold_counts_as_predicted():
    metrics = compute_multilabel(np.array([[0.25]]), np.array([[1]]), class_names=["x"], threshold=0.25)

    assert metrics["accuracy"] == 1.0


def test_ranking_scores_of_a_class_that_is_never_or_always_present_are_none():
    labels = np.array([[0, 1], [0, 1]])

    metrics = compute_multilabel(PAIRS[:2], labels, class_names=["never", "always"])

    assert metrics["per_class"]["never"]["average_precision"] is None
    assert metrics["per_class"]["always"]["average_precision"] == 1.0
    assert metrics["average_precision"] == 1.0
    assert metrics["roc_auc"] is None
    assert "roc_auc" not in scalar_metrics(metrics)


def test_metrics_are_ready_for_json():
    found = [
        compute_multiclass(FOUR.astype("float32"), FOUR_LABELS, class_names=ABC),
        compute_multilabel(PAIRS.astype("float32"), PAIRS_LABELS, class_names=["x", "y"]),
    ]

    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("probabilities", "labels", "names", "message"),
    [
        (np.array([[0.5, np.nan]]), np.array([0]), ["x", "y"], "NaN or infinity in 1 of 1 examples"),
        (np.array([[0.5, np.inf]]), np.array([0]), ["x", "y"], "first in example 0"),
        (np.array([[-2.0, 3.0]]), np.array([0]), ["x", "y"], "apply softmax or sigmoid"),
        (np.zeros((0, 2)), np.zeros(0, int), ["x", "y"], r"shape \(0, 2\)"),
        (np.array([0.5, 0.5]), np.array([0]), ["x", "y"], r"shape \(2,\)"),
        (PAIRS, np.array([0, 1]), ["x", "y"], r"wanted \(3,\) of integers"),
        (PAIRS, np.array([0, 1, 2]), ["x", "y"], "classes from 0 to 2; wanted 0 to 1"),
        (PAIRS, np.array([0.0, 1.0, 0.0]), ["x", "y"], "of float64"),
        (PAIRS, np.array([0, 1, 0]), ["x", "x"], "2 names, 1 of them different"),
    ],
)
def test_multiclass_input_that_cannot_be_right_is_refused(probabilities, labels, names, message):
    with pytest.raises(ValueError, match=message):
        compute_multiclass(probabilities, labels, class_names=names)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(PAIRS_LABELS[:2], r"shape \(2, 2\); wanted \(3, 2\)"), (PAIRS_LABELS * 2, "neither 0 nor 1")],
)
def test_multilabel_labels_that_cannot_be_right_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        compute_multilabel(PAIRS, labels, class_names=["x", "y"])


def test_the_functions_need_no_torch():
    program = "import sys, hf_tasks.metrics.classification; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_evaluate_modules_give_the_same_at_once_and_in_batches(tmp_path):
    at_once = MulticlassClassification(cache_dir=str(tmp_path))
    in_batches = MulticlassClassification(cache_dir=str(tmp_path))
    for rows in (slice(0, 3), slice(3, 4)):
        in_batches.add_batch(predictions=FOUR[rows], references=FOUR_LABELS[rows])

    found = at_once.compute(predictions=FOUR, references=FOUR_LABELS, class_names=ABC)

    assert found == compute_multiclass(FOUR, FOUR_LABELS, class_names=ABC)
    assert in_batches.compute(class_names=ABC) == found


def test_the_multilabel_module_takes_a_threshold(tmp_path):
    module = MultilabelClassification(cache_dir=str(tmp_path))

    found = module.compute(predictions=PAIRS, references=PAIRS_LABELS, threshold=0.35)

    assert found == compute_multilabel(PAIRS, PAIRS_LABELS, class_names=["0", "1"], threshold=0.35)


@pytest.mark.parametrize("name", ["../accuracy", "someone/accuracy", "accuracy.py", "", "a b"])
def test_a_further_metric_that_is_no_plain_name_is_refused(name):
    with pytest.raises(UserError, match="is not a plain name"):
        load_further_metrics([name], trust_remote_code=True)


def test_a_further_metric_never_runs_a_local_script(tmp_path, monkeypatch):
    (tmp_path / "accuracy").mkdir()
    (tmp_path / "accuracy" / "accuracy.py").write_text("raise SystemExit('this was run')")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserError, match="would be run instead of the metric 'accuracy'"):
        load_further_metrics(["accuracy"], trust_remote_code=True)


def test_further_metrics_need_the_flag_of_the_command_line():
    with pytest.raises(UserError, match="add --trust-remote-code to the command"):
        load_further_metrics(["accuracy"], trust_remote_code=False)


def test_no_further_metrics_need_no_flag():
    assert load_further_metrics([], trust_remote_code=False) == []


def test_a_further_metric_that_cannot_be_had_is_named_with_its_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)

    with pytest.raises(UserError, match=r"no metric 'acuracy'.*did you mean 'accuracy'"):
        load_further_metrics(["acuracy"], trust_remote_code=True)


def test_further_metrics_are_asked_as_modules_of_the_hub_and_named_after_themselves(tmp_path, monkeypatch):
    asked = []

    def load(name, **options):
        asked.append((name, options["module_type"], options["config_name"]))
        return MulticlassClassification(cache_dir=str(tmp_path))

    monkeypatch.setattr(evaluate, "load", load)

    loaded = load_further_metrics(["one"], trust_remote_code=True)
    results = compute_further(loaded, FOUR, FOUR_LABELS)

    assert asked == [("one", "metric", None)]
    assert results["multiclass_classification_accuracy"] == 0.75


def test_a_further_metric_that_does_not_fit_the_decisions_is_a_mistake_of_the_recipe(tmp_path):
    module = MultilabelClassification(cache_dir=str(tmp_path))

    with pytest.raises(UserError, match=r"'multilabel_classification' cannot be computed from .* \(4,\)"):
        compute_further([module], FOUR_LABELS, FOUR_LABELS)
