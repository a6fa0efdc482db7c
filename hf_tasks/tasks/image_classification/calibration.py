"""Temperature and thresholds of a classifier: fitted to validation rows, and what they are worth on new ones.

Legend of axes: N examples, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hf_tasks.metrics.bootstrap import multilabel_figures
from hf_tasks.metrics.calibration import (
    claims,
    cross_fit,
    f1_thresholds,
    fit_temperature,
    measure_calibration,
    precision_thresholds,
    reliability_bins,
)
from hf_tasks.tasks.image_classification.predictions import probabilities
from hf_tasks.tasks.image_classification.settings import Calibration, PrecisionThreshold

Floats = NDArray[np.floating[Any]]


def fit_calibration(
    settings: Calibration, logits_NC: Floats, labels: NDArray[Any], class_names: Sequence[str]
) -> dict[str, Any]:
    """What the model's config holds as `calibration`: `temperature`, `thresholds` by class name, or neither.

    Thresholds are of the probabilities after the temperature. Both are fitted to all of these rows.
    """
    fitted: dict[str, Any] = {}
    if settings.temperature:
        fitted["temperature"] = fit_temperature(logits_NC, labels)
    if settings.thresholds is not None:
        found_NC = probabilities(logits_NC, is_multilabel=True, temperature=fitted.get("temperature", 1.0))
        thresholds_C = _fit_thresholds(settings.thresholds, found_NC, labels)
        fitted["thresholds"] = dict(zip(class_names, thresholds_C.tolist(), strict=True))
    return fitted


def describe_calibration(
    logits_NC: Floats, labels: NDArray[Any], calibration: Mapping[str, Any]
) -> dict[str, Any]:
    """How far probabilities are from what happens, with and without a temperature.

    Args:
        logits_NC: of the examples that are measured.
        labels: (N,) class numbers, or (N, C) of 0 and 1.
        calibration: what the model's config holds.

    Returns:
        JSON-ready `ece`, `adaptive_ece`, `brier` of the probabilities as the model gives them,
        `temperature` (1 if it has none) and `reliability` (bins); the three figures again as `uncalibrated`
        (temperature 1), and as `cross_fitted` with `temperature`, the best for these rows, where each fifth
        of them was measured with what the others gave: only that is no praise of itself.
    """
    is_multilabel = labels.ndim == 2
    applied = calibration.get("temperature", 1.0)
    given_NC = probabilities(logits_NC, is_multilabel=is_multilabel, temperature=applied)
    plain_NC = given_NC if applied == 1 else probabilities(logits_NC, is_multilabel=is_multilabel)
    described = {
        "temperature": applied,
        **measure_calibration(given_NC, labels),
        "uncalibrated": measure_calibration(plain_NC, labels),
        "reliability": reliability_bins(*claims(given_NC, labels)),
    }
    if len(labels) > 1:
        crossed_NC = cross_fit(
            lambda fitted_N: fit_temperature(logits_NC[fitted_N], labels[fitted_N]),
            lambda best, asked_N: probabilities(
                logits_NC[asked_N], is_multilabel=is_multilabel, temperature=best
            ),
            len(labels),
        )
        best = fit_temperature(logits_NC, labels)
        described["cross_fitted"] = {"temperature": best, **measure_calibration(crossed_NC, labels)}
    return described


def describe_thresholds(found_NC: Floats, labels_NC: NDArray[Any]) -> dict[str, Any]:
    """`accuracy`, `f1_macro` and `f1_micro` at 0.5 (`at_half`) and at the thresholds of best F1 (`best_f1`).

    The latter are cross-fitted: each fifth of the rows is decided by thresholds that the others gave, so
    that it tells what new rows may expect.
    """
    decided = {"at_half": found_NC >= 0.5}
    if len(labels_NC) > 1:
        decided["best_f1"] = cross_fit(
            lambda fitted_N: f1_thresholds(found_NC[fitted_N], labels_NC[fitted_N]),
            lambda thresholds_C, asked_N: found_NC[asked_N] >= thresholds_C,
            len(labels_NC),
        )
    every_row_once = np.ones(len(labels_NC))
    figures = {name: multilabel_figures(labels_NC, each)(every_row_once) for name, each in decided.items()}
    return {
        name: {key: float(found[key]) for key in ("accuracy", "f1_macro", "f1_micro")}
        for name, found in figures.items()
    }


def _fit_thresholds(
    rule: Literal["f1"] | PrecisionThreshold, found_NC: Floats, labels_NC: NDArray[Any]
) -> NDArray[np.float64]:
    if isinstance(rule, PrecisionThreshold):
        return precision_thresholds(found_NC, labels_NC, precision=rule.precision)
    return f1_thresholds(found_NC, labels_NC)
