"""Examples whose label is more likely wrong than the model: high loss and confident disagreement.

Legend of axes: N examples, C classes.
"""

import numpy as np

from hf_tasks.contract.answers import ClassificationAnswers

HIGH_LOSS = 0.95


def suspected_label_errors(answers: ClassificationAnswers) -> np.ndarray:
    """Numbers of the suspected examples, the most suspicious first.

    An example is suspected when its loss is among the highest twentieth, and the model gives a class it is
    not labelled with as much as it gives that class on average where it is right; or, with several labels,
    gives a class it is labelled with as little as on average where that is absent.

    Source: the thresholds of confident learning, arXiv:1911.00068, section 3.1.
    """
    found_NC = answers.probabilities_NC
    present_NC = _presence(answers)
    usual_present_C = _mean_where(found_NC, present_NC, otherwise=1.0)
    is_disputed_NC = ~present_NC & (found_NC >= np.maximum(usual_present_C, 0.5))
    if answers.is_multilabel:
        usual_absent_C = _mean_where(found_NC, ~present_NC, otherwise=0.0)
        is_disputed_NC |= present_NC & (found_NC <= np.minimum(usual_absent_C, 0.5))
    is_high_N = answers.losses_N >= np.quantile(answers.losses_N, HIGH_LOSS)
    suspects = np.flatnonzero(is_disputed_NC.any(axis=1) & is_high_N)
    return suspects[np.argsort(-answers.losses_N[suspects], kind="stable")]


def _presence(answers: ClassificationAnswers) -> np.ndarray:
    if answers.is_multilabel:
        return answers.labels.astype(bool)
    return answers.labels[:, None] == np.arange(len(answers.class_names))


def _mean_where(found_NC: np.ndarray, is_meant_NC: np.ndarray, *, otherwise: float) -> np.ndarray:
    count_C = is_meant_NC.sum(axis=0)
    sums_C = np.einsum("nc,nc->c", found_NC, is_meant_NC)
    return np.where(count_C > 0, sums_C / np.maximum(count_C, 1), otherwise)
