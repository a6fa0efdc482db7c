"""What metrics.json says of a classifier's answers: figures, their intervals, calibration, thresholds.

Legend of axes: N examples, C classes.
"""

from typing import Any

import numpy as np
from transformers import PretrainedConfig

from hf_tasks.contract.answers import ClassificationAnswers
from hf_tasks.metrics.bootstrap import interval_ends
from hf_tasks.metrics.calibration import f1_thresholds
from hf_tasks.metrics.classification import compute_multiclass, compute_multilabel
from hf_tasks.metrics.intervals import Answers, classification_intervals
from hf_tasks.tasks.image_classification.calibration import describe_calibration, describe_thresholds
from hf_tasks.tasks.image_classification.predictions import calibration_of, thresholds_of


def describe_answers(
    answers: ClassificationAnswers, logits_NC: np.ndarray, config: PretrainedConfig
) -> dict[str, Any]:
    """All figures of one evaluation, JSON-ready.

    Args:
        answers: what the model says, as its config decodes it.
        logits_NC: what it was decoded from.
        config: of the model.

    Returns:
        What compute_multiclass or compute_multilabel return at the model's thresholds; `intervals` (95 %,
        `[low, high]` by metric, a pair a class for `f1`); `calibration`, as describe_calibration; and for
        several classes `thresholds`, as describe_thresholds, with `threshold` and `best_f1_threshold` of
        each class under `per_class`.
    """
    if answers.is_multilabel:
        metrics = _multilabel_metrics(answers, config)
    else:
        metrics = compute_multiclass(
            answers.probabilities_NC, answers.labels, class_names=answers.class_names
        )
    intervals = classification_intervals(
        Answers(answers.decisions, answers.losses_N, answers.probabilities_NC),
        answers.labels,
        classes=len(answers.class_names),
    )
    metrics["intervals"] = interval_ends(intervals)
    metrics["calibration"] = describe_calibration(logits_NC, answers.labels, calibration_of(config))
    return metrics


def _multilabel_metrics(answers: ClassificationAnswers, config: PretrainedConfig) -> dict[str, Any]:
    found_NC, labels_NC = answers.probabilities_NC, answers.labels
    thresholds_C = thresholds_of(config)
    metrics = compute_multilabel(found_NC, labels_NC, class_names=answers.class_names, threshold=thresholds_C)
    columns = zip(answers.class_names, thresholds_C, f1_thresholds(found_NC, labels_NC), strict=True)
    for name, threshold, best in columns:
        metrics["per_class"][name] |= {"threshold": float(threshold), "best_f1_threshold": float(best)}
    metrics["thresholds"] = describe_thresholds(found_NC, labels_NC)
    return metrics
