"""What a picture's caption says of a classifier's answer: truth, decision, how sure it was.

Legend of axes: N examples, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_tasks.contract.answers import ClassificationAnswers

MOST_CHIPS = 12


@dataclass(frozen=True)
class Chip:
    """A word with a colour; `kind` is good, bad, missed, plain or arrow."""

    text: str
    kind: str
    about: str = ""


@dataclass(frozen=True)
class Caption:
    """The words below one picture."""

    is_wrong: bool | None
    """Colour of the frame; None for a picture that is neither right nor wrong."""
    chips: Sequence[Chip]
    sure: float | None = None
    """In [0, 1], drawn as a bar."""
    sure_about: str = ""
    about: str = ""
    """Said when the path is pointed at."""


def wrong_examples(answers: ClassificationAnswers) -> np.ndarray:
    """Whether each example has anything wrong, bool (N,)."""
    is_wrong = answers.decisions != answers.labels
    return is_wrong.any(axis=1) if answers.is_multilabel else is_wrong


def confidence(answers: ClassificationAnswers) -> np.ndarray:
    """How sure each decision was, in [0, 1], (N,): of several classes, of the one it got most wrong."""
    if not answers.is_multilabel:
        return np.take_along_axis(answers.probabilities_NC, answers.decisions[:, None], axis=1)[:, 0]
    return np.abs(answers.probabilities_NC - answers.labels).max(axis=1)


def caption(answers: ClassificationAnswers, number: int) -> Caption:
    """The caption of one example."""
    truth, decision = answers.labels[number], answers.decisions[number]
    loss = f", loss {answers.losses_N[number]:.4g}"
    row_C = answers.probabilities_NC[number]
    if answers.is_multilabel:
        sure = float(np.abs(row_C - truth).max())
        chips = _label_chips(answers.class_names, truth, decision)
        about = "how far the worst of the probabilities is from the truth"
        return Caption(bool((truth != decision).any()), chips, sure, about, loss)
    names = answers.class_names
    if truth == decision:
        chips = [Chip(names[truth], "good", "true and predicted")]
    else:
        chips = [
            Chip(names[truth], "good", "true"),
            Chip("→", "arrow", "was taken for"),
            Chip(names[decision], "bad", "predicted"),
        ]
    return Caption(
        bool(truth != decision), chips, float(row_C[decision]), "probability of the decision", loss
    )


def _label_chips(names: Sequence[str], truth_C: np.ndarray, decision_C: np.ndarray) -> list[Chip]:
    """Mistakes first, so that none is left out where there are too many labels."""
    chips = []
    for index in np.flatnonzero((truth_C != 0) | (decision_C != 0)).tolist():
        if truth_C[index] and decision_C[index]:
            chips.append(Chip(names[index], "good", "there, and found"))
        elif truth_C[index]:
            chips.append(Chip(names[index], "missed", "there, but missed"))
        else:
            chips.append(Chip(names[index], "bad", "not there, but predicted"))
    chips.sort(key=lambda chip: chip.kind == "good")
    if len(chips) > MOST_CHIPS:
        chips = [*chips[:MOST_CHIPS], Chip(f"and {len(chips) - MOST_CHIPS} more", "plain")]
    return chips or [Chip("no label", "plain", "none there, none predicted")]
