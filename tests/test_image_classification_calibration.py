"""Temperature and thresholds of a classifier: in its config, in its answers, in metrics.json, in recipes."""

import csv
import json

import numpy as np
import pytest
from conftest import run_program
from reports import build_answers
from scipy.special import expit, softmax
from sklearn.metrics import f1_score
from transformers import PretrainedConfig, TimmWrapperConfig

from hf_tasks.errors import RecipeError
from hf_tasks.metrics.calibration import fit_temperature, fold_numbers, measure_calibration
from hf_tasks.recipe import load_recipe
from hf_tasks.tasks.image_classification.calibration import (
    describe_calibration,
    describe_thresholds,
    fit_calibration,
)
from hf_tasks.tasks.image_classification.measure import describe_answers
from hf_tasks.tasks.image_classification.predictions import decode_logits
from hf_tasks.tasks.image_classification.settings import Calibration

LOGITS = np.array([[2.0, 0.0], [0.5, 1.0]], dtype=np.float32)


def _config(*, is_multilabel=False, **calibration):
    kind = "multi_label_classification" if is_multilabel else "single_label_classification"
    return PretrainedConfig(id2label={0: "a", 1: "b"}, problem_type=kind, calibration=calibration)


def test_logits_become_probabilities_and_the_most_probable_class():
    found, decisions = decode_logits(LOGITS, _config())

    np.testing.assert_allclose(found, softmax(LOGITS.astype(float), axis=1), atol=1e-15)
    assert decisions.tolist() == [0, 1]


def test_a_temperature_divides_the_logits_first():
    found, decisions = decode_logits(LOGITS, _config(temperature=2.0))

    np.testing.assert_allclose(found, softmax(LOGITS.astype(float) / 2, axis=1), atol=1e-15)
    assert decisions.tolist() == [0, 1]


def test_each_label_has_its_own_threshold_by_name():
    found, decisions = decode_logits(LOGITS, _config(is_multilabel=True, thresholds={"b": 0.4, "a": 0.7}))

    np.testing.assert_allclose(found, expit(LOGITS.astype(float)), atol=1e-15)
    assert decisions.tolist() == [[1, 1], [0, 1]]  # 0.88 and 0.5; 0.62 and 0.73


def test_a_config_without_calibration_decides_at_a_half():
    config = PretrainedConfig(id2label={0: "a", 1: "b"}, problem_type="multi_label_classification")

    _, decisions = decode_logits(np.array([[0.0, -0.1]]), config)

    assert decisions.tolist() == [[1, 0]]


def test_the_config_of_a_saved_model_keeps_the_calibration(tmp_path, recwarn):
    calibration = {"temperature": 1.5, "thresholds": {"a": 0.3, "b": 0.6}}
    names = {0: "a", 1: "b"}
    config = TimmWrapperConfig(
        architecture="resnet10t", id2label=names, label2id={"a": 0, "b": 1}, calibration=calibration
    )

    config.save_pretrained(tmp_path)

    assert TimmWrapperConfig.from_pretrained(tmp_path).calibration == calibration
    assert not [str(warning.message) for warning in recwarn if "generation" in str(warning.message)]


def test_what_a_recipe_does_not_ask_for_is_not_fitted():
    _, logits = build_answers(is_multilabel=True, with_logits=True)

    assert fit_calibration(Calibration(), logits, np.ones((60, 3)), ("ant", "bee", "cat")) == {}


def test_thresholds_are_of_the_probabilities_after_the_temperature():
    answers, logits = build_answers(count=50, is_multilabel=True, with_logits=True)
    settings = Calibration(temperature=True, thresholds="f1")

    fitted = fit_calibration(settings, logits, answers.labels, answers.class_names)

    assert fitted["temperature"] == fit_temperature(logits, answers.labels)
    scaled = expit(logits.astype(float) / fitted["temperature"])
    for index, name in enumerate(answers.class_names):
        tried = [f1_score(answers.labels[:, index], scaled[:, index] >= value) for value in scaled[:, index]]
        reached = f1_score(answers.labels[:, index], scaled[:, index] >= fitted["thresholds"][name])
        assert reached == pytest.approx(max(tried), abs=1e-12)


def test_a_wanted_precision_is_reached_on_the_rows_it_is_fitted_to():
    answers, logits = build_answers(count=200, is_multilabel=True, with_logits=True)
    settings = Calibration(thresholds={"precision": 0.9})

    fitted = fit_calibration(settings, logits, answers.labels, answers.class_names)

    for index, name in enumerate(answers.class_names):
        is_predicted = expit(logits[:, index].astype(float)) >= fitted["thresholds"][name]
        assert answers.labels[is_predicted, index].mean() >= 0.9


def test_the_figures_of_a_temperature_are_of_rows_it_was_not_fitted_to():
    answers, logits = build_answers(count=150, with_logits=True)

    described = describe_calibration(4 * logits, answers.labels, {})

    probabilities = np.empty((150, 3))
    for fold in range(5):
        is_held_out = fold_numbers(150) == fold
        best = fit_temperature(4 * logits[~is_held_out], answers.labels[~is_held_out])
        probabilities[is_held_out] = softmax(4 * logits[is_held_out].astype(float) / best, axis=1)
    squares = ((probabilities - np.eye(3)[answers.labels]) ** 2).sum(axis=1).mean()
    assert described["cross_fitted"]["brier"] == pytest.approx(squares, abs=1e-12)
    assert described["cross_fitted"]["ece"] < described["uncalibrated"]["ece"] / 2
    assert described["temperature"] == 1.0
    assert described["ece"] == described["uncalibrated"]["ece"]


def test_an_applied_temperature_changes_the_figures_but_not_those_without_it():
    answers, logits = build_answers(count=150, with_logits=True)

    plain, scaled = (
        describe_calibration(logits, answers.labels, calibration)
        for calibration in ({}, {"temperature": 0.5})
    )

    assert scaled["uncalibrated"] == plain["uncalibrated"]
    assert scaled["cross_fitted"] == plain["cross_fitted"]
    expected = measure_calibration(softmax(2 * logits.astype(float), axis=1), answers.labels)
    assert {name: scaled[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert scaled["temperature"] == 0.5


def test_best_thresholds_are_measured_on_rows_they_were_not_fitted_to():
    answers = build_answers(count=40, is_multilabel=True)

    described = describe_thresholds(answers.probabilities_NC, answers.labels)

    half = f1_score(answers.labels, answers.probabilities_NC >= 0.5, average="macro")
    assert described["at_half"]["f1_macro"] == pytest.approx(half, abs=1e-9)
    assert set(described["best_f1"]) == {"accuracy", "f1_macro", "f1_micro"}


def test_metrics_are_those_of_the_thresholds_in_the_config():
    answers, logits = build_answers(count=100, is_multilabel=True, with_logits=True)
    thresholds = {"ant": 0.2, "bee": 0.5, "cat": 0.8}
    config = PretrainedConfig(
        id2label=dict(enumerate(answers.class_names)),
        problem_type="multi_label_classification",
        calibration={"thresholds": thresholds},
    )

    metrics = describe_answers(answers, logits, config)

    decided = expit(logits.astype(float)) >= [0.2, 0.5, 0.8]
    assert metrics["f1_macro"] == pytest.approx(f1_score(answers.labels, decided, average="macro"), abs=1e-9)
    assert metrics["per_class"]["cat"]["threshold"] == 0.8
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_thresholds_for_one_label_are_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "task: image-classification\noutput: run\ndata: {train: {table: a.csv}}\nmodel: {name: resnet10t}\n"
        "calibration: {thresholds: f1}\n"
    )

    with pytest.raises(RecipeError, match=r"calibration\.thresholds: data\.columns name one label"):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.slow
def test_a_run_keeps_its_calibration_and_evaluate_and_predict_apply_it(multilabel_run, digits, tmp_path):
    calibration = json.loads((multilabel_run / "model/config.json").read_text())["calibration"]
    metrics = json.loads((multilabel_run / "metrics.json").read_text())

    evaluated = run_program("evaluate", multilabel_run, "--out", tmp_path / "again", folder=digits)
    pictures = digits / "data/digits_multilabel/images"
    predicted = run_program("predict", multilabel_run, pictures, "--out", tmp_path / "out.csv", folder=digits)

    assert (evaluated.returncode, predicted.returncode) == (0, 0), evaluated.stderr + predicted.stderr
    assert set(calibration["thresholds"]) == {"even", "prime", "has_a_loop"}
    assert metrics["calibration"]["temperature"] == calibration["temperature"] != 1
    again = json.loads((tmp_path / "again/metrics.json").read_text())
    assert again == {name: value for name, value in metrics.items() if name != "training"}
    with (tmp_path / "out.csv").open() as file:
        for row in csv.DictReader(file):
            passed = {
                name for name, least in calibration["thresholds"].items()
                if float(row[f"probability_{name}"]) >= least
            }  # fmt: skip
            assert set(filter(None, row["predicted"].split("|"))) == passed
