"""What a person reads of a classifier's answers: classes and probabilities, for tables and for new files.

Legend of axes: N examples, C classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax
from transformers import (
    PretrainedConfig,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    TimmWrapperImageProcessor,
)

from hf_tasks.contract.exports import Arrays, Network
from hf_tasks.images.reading import answered_files
from hf_tasks.images.transform import ValidationTransform

SHOWN_CLASSES = 20
HIGHEST = 5


def decode_logits(logits_NC: np.ndarray, config: PretrainedConfig) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, float64 (N, C), and decisions as a model's config asks for them.

    Args:
        logits_NC: what the network gives.
        config: of the saved model: `problem_type`, the class names, and `calibration`, if there is one, with
            a `temperature` that logits are divided by and `thresholds` by class name.

    Returns:
        Probabilities, and (N,) class numbers, or (N, C) of 0 and 1 for several classes per picture.
    """
    is_multilabel = config.problem_type == "multi_label_classification"
    temperature = calibration_of(config).get("temperature", 1.0)
    found_NC = probabilities(logits_NC, is_multilabel=is_multilabel, temperature=temperature)
    return found_NC, decided_classes(found_NC, is_multilabel=is_multilabel, thresholds=thresholds_of(config))


def calibration_of(config: PretrainedConfig) -> Mapping[str, Any]:
    """What was fitted to validation rows; empty for a model that nothing was fitted for.

    It has a place of its own in the config because transformers takes a bare `temperature` for one of text
    generation: version 4 warns of it, version 5 drops it.
    """
    return getattr(config, "calibration", None) or {}


def thresholds_of(config: PretrainedConfig) -> np.ndarray:
    """The probability from which on each class counts as present, (C,); 0.5 where nothing was fitted."""
    thresholds = calibration_of(config).get("thresholds", {})
    return np.array([thresholds.get(config.id2label[index], 0.5) for index in range(config.num_labels)])


def probabilities(logits_NC: np.ndarray, *, is_multilabel: bool, temperature: float = 1.0) -> np.ndarray:
    """Sigmoid of each logit for several classes per picture, else softmax over them; float64 (N, C)."""
    logits = np.divide(logits_NC, temperature, dtype=np.float64)
    return expit(logits) if is_multilabel else softmax(logits, axis=1)


def decided_classes(
    probabilities_NC: np.ndarray, *, is_multilabel: bool, thresholds: float | np.ndarray = 0.5
) -> np.ndarray:
    """(N, C) of 0 and 1 from a threshold on, one or one a class, for several classes, else (N,) classes."""
    if is_multilabel:
        return (probabilities_NC >= thresholds).astype(np.int64)
    return probabilities_NC.argmax(axis=1)


def class_texts(decisions: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """Decisions or labels as people write them: a class name, or names joined by `|`."""
    if decisions.ndim == 1:
        return [class_names[index] for index in decisions.tolist()]
    return ["|".join(class_names[index] for index in np.flatnonzero(row).tolist()) for row in decisions]


def answer_columns(
    probabilities_NC: np.ndarray, decisions: np.ndarray, class_names: Sequence[str]
) -> dict[str, list[Any]]:
    """Columns `predicted`, its `probability` (one class per picture), then the probabilities.

    Up to 20 classes have a column `probability_NAME` each; of more, the five highest are given as
    `class_1`, `probability_1` and so on.
    """
    columns: dict[str, list[Any]] = {"predicted": class_texts(decisions, class_names)}
    if decisions.ndim == 1:
        columns["probability"] = probabilities_NC.max(axis=1).tolist()
    if len(class_names) <= SHOWN_CLASSES:
        each = {f"probability_{name}": probabilities_NC[:, i].tolist() for i, name in enumerate(class_names)}
        return {**columns, **each}
    order = np.argsort(-probabilities_NC, axis=1, kind="stable")[:, :HIGHEST]
    for place in range(HIGHEST):
        index = order[:, place : place + 1]
        columns[f"class_{place + 1}"] = class_texts(index[:, 0], class_names)
        columns[f"probability_{place + 1}"] = np.take_along_axis(probabilities_NC, index, axis=1)[
            :, 0
        ].tolist()
    return columns


class ClassifierPredictor:
    """A saved classifier for picture files; reads ahead in threads while the network works."""

    def __init__(self, folder: Path, network: Network | None = None) -> None:
        """Load a model folder; the picture preparation is the one saved with the model.

        Args:
            folder: configuration and weights.
            network: answers in place of the saved weights, from pixel_values to logits.
        """
        config = TimmWrapperConfig.from_pretrained(folder)
        self.network = _saved_network(folder) if network is None else network
        self.transform = ValidationTransform(TimmWrapperImageProcessor.from_pretrained(folder))
        self.config = config
        self.class_names = [config.id2label[index] for index in range(config.num_labels)]

    def __call__(self, paths: Sequence[Path], *, batch_size: int) -> Iterator[Mapping[str, Any]]:
        """One row a file, in order; the row of an unreadable file holds its `error`."""
        return answered_files(paths, self.transform, self._answers, batch_size=batch_size)

    def _answers(self, pictures: Sequence[torch.Tensor]) -> dict[str, list[Any]]:
        logits_NC = np.zeros((0, len(self.class_names)), dtype=np.float32)
        if pictures:
            logits_NC = self.network({"pixel_values": torch.stack(list(pictures)).numpy()})
        return answer_columns(*decode_logits(logits_NC, self.config), self.class_names)


def _saved_network(folder: Path) -> Network:
    """The saved weights, on the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = TimmWrapperForImageClassification.from_pretrained(folder).to(device).eval()

    def network(inputs: Arrays) -> np.ndarray:
        with torch.inference_mode():
            logits_NC = model(torch.from_numpy(inputs["pixel_values"]).to(device)).logits
        return logits_NC.float().cpu().numpy()

    return network
