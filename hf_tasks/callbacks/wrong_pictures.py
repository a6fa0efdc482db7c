"""The most confidently wrong pictures of a classifier, for trackers to show.

Legend of axes: N examples, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hf_tasks.callbacks.names import tracked_name
from hf_tasks.contract.answers import ClassificationAnswers

LONGEST_SIDE = 512
# Two of them, a probability and a number have to fit 255 bytes, and a letter may be four of them.
LONGEST_ASCII_NAME, LONGEST_NAME = 40, 30


@dataclass(frozen=True)
class WrongPicture:
    """An example that was answered wrongly."""

    example: int
    true: tuple[str, ...]
    """Names of its classes; one, or for several classes per picture any number."""
    predicted: tuple[str, ...]
    probability: float
    """Of the wrong class that was predicted; for several classes, how sure the worst mistake was."""


def select_wrong(answers: ClassificationAnswers, *, limit: int) -> list[WrongPicture]:
    """The wrong answers that the model was surest of, surest first; of equal ones the earlier."""
    wrong_NC = _certainty_of_mistakes(answers)
    certainty_N = wrong_NC.max(axis=1)
    order = np.argsort(-certainty_N, kind="stable")[:limit]
    return [
        WrongPicture(
            example,
            _names(answers.labels[example], answers.class_names),
            _names(answers.decisions[example], answers.class_names),
            float(certainty_N[example]),
        )
        for example in order.tolist()
        if certainty_N[example] > 0
    ]


def save_wrong(answers: ClassificationAnswers, folder: Path, *, limit: int) -> None:
    """Write the surest wrong pictures as folder/TRUE/PREDICTED_TRUE_PROBABILITY.png, 512 pixels at most."""
    for wrong in select_wrong(answers, limit=limit):
        true, predicted = _file_name(wrong.true), _file_name(wrong.predicted)
        stem = f"{predicted}_{true}_{wrong.probability:.4f}"
        place = folder / true
        place.mkdir(parents=True, exist_ok=True)
        twins = len(list(place.glob(f"{stem}*.png")))
        load_small(answers, wrong.example, LONGEST_SIDE).save(
            place / f"{stem}{f'_{twins + 1}' if twins else ''}.png"
        )


def load_small(answers: ClassificationAnswers, example: int, longest_side: int) -> Image.Image:
    """A picture shrunk to fit a square, in RGB; a smaller one as it is."""
    picture = answers.load_picture(example).convert("RGB")
    picture.thumbnail((longest_side, longest_side))
    return picture


def _certainty_of_mistakes(answers: ClassificationAnswers) -> np.ndarray:
    """How sure the model was of each wrong decision, (N, C); 0 where it was right."""
    if not answers.is_multilabel:
        is_wrong_N = answers.decisions != answers.labels
        taken_N = np.take_along_axis(answers.probabilities_NC, answers.decisions[:, None], axis=1)
        return taken_N * is_wrong_N[:, None]
    is_wrong_NC = answers.decisions != answers.labels
    sure_NC = np.where(answers.decisions == 1, answers.probabilities_NC, 1 - answers.probabilities_NC)
    return sure_NC * is_wrong_NC


def _names(classes: np.ndarray, class_names: Sequence[str]) -> tuple[str, ...]:
    """The names of a class number, or of the classes that are 1."""
    if classes.ndim == 0:
        return (class_names[int(classes)],)
    return tuple(class_names[index] for index in np.flatnonzero(classes).tolist())


def _file_name(names: Sequence[str]) -> str:
    """The names joined by `+`, which no single name holds; `+` alone for none."""
    longest = LONGEST_ASCII_NAME if all(name.isascii() for name in names) else LONGEST_NAME
    joined = "+".join(tracked_name(name, longest=longest) for name in names) or "+"
    return joined if len(joined) <= longest else tracked_name(joined, longest=longest)
