"""How a classifier is exported: its inputs, what an answer of it means, and the rows that prove a file.

Legend of axes: N examples, C classes.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import TimmWrapperForImageClassification, TimmWrapperImageProcessor

from hf_tasks.contract.exports import Arrays, Decisions, ExportPlan, Pictures, PictureSteps
from hf_tasks.errors import ExportError
from hf_tasks.files import write_text
from hf_tasks.images.dataset import IMAGE_COLUMN
from hf_tasks.images.decode import load_rgb
from hf_tasks.images.steps import picture_steps
from hf_tasks.images.transform import ValidationTransform
from hf_tasks.metrics.classification import compute_multiclass, compute_multilabel
from hf_tasks.tasks.image_classification.data import ClassificationSplits
from hf_tasks.tasks.image_classification.predictions import calibration_of, probabilities, thresholds_of
from hf_tasks.tasks.image_classification.settings import Settings

BATCH = {"pixel_values": {0: "batch"}, "logits": {0: "batch"}}
SIZE = {"pixel_values": {2: "height", 3: "width"}}
CALIBRATION_BATCH = 32


def plan_export(
    settings: Settings, model: TimmWrapperForImageClassification, splits: ClassificationSplits
) -> ExportPlan:
    """The plan for a classifier: from pixel_values to logits, judged by its probabilities and decisions."""
    model = model.to("cpu").eval()
    processor = TimmWrapperImageProcessor(model.config.pretrained_cfg, architecture=model.config.architecture)
    transform = ValidationTransform(processor)
    pictures = _pictures(model, splits, picture_steps(processor.data_config))
    noise = torch.Generator().manual_seed(0)
    return ExportPlan(
        model=model,
        inputs={"pixel_values": torch.empty(2, 3, *pictures.steps.crop).normal_(generator=noise)},
        output="logits",
        axes=BATCH,
        size_axes=SIZE,
        optimum_task="image-classification",
        quantization="static",
        rows=len(splits.validation),
        batches=lambda rows, size: _batches(splits.validation.select(rows), transform, size),
        calibration=lambda examples: _calibration(splits, transform, examples),
        answers=lambda logits_NC, rows: probabilities(
            logits_NC, is_multilabel=splits.is_multilabel, temperature=pictures.temperature
        ),
        decide=lambda answers_NC, rows: decide(answers_NC, pictures.thresholds),
        metric="average_precision" if splits.is_multilabel else "accuracy",
        measure=_measure(splits),
        pictures=pictures,
        labels=splits.class_names,
        facts=_facts(model, splits, pictures),
        save_beside=lambda folder: _save_beside(model, folder),
    )


def decide(answers_NC: np.ndarray, thresholds: Sequence[float] | None) -> Decisions:
    """The most probable class and its lead; or, with thresholds, the classes that reach theirs."""
    if thresholds is not None:
        excess_NC = answers_NC - np.asarray(thresholds)
        return Decisions((excess_NC >= 0).astype(np.int64), np.abs(excess_NC).min(axis=1))
    highest_N2 = np.partition(answers_NC, -2, axis=1)[:, -2:]
    return Decisions(answers_NC.argmax(axis=1), highest_N2[:, 1] - highest_N2[:, 0])


def _pictures(
    model: TimmWrapperForImageClassification, splits: ClassificationSplits, steps: PictureSteps
) -> Pictures:
    return Pictures(
        steps=steps,
        load=lambda row: np.array(load_rgb(splits.validation[row][IMAGE_COLUMN])),
        activation="sigmoid" if splits.is_multilabel else "softmax",
        temperature=float(calibration_of(model.config).get("temperature", 1.0)),
        thresholds=tuple(thresholds_of(model.config).tolist()) if splits.is_multilabel else None,
    )


def _measure(splits: ClassificationSplits) -> Callable[[np.ndarray, Sequence[int]], float]:
    labels = splits.labels(splits.validation)

    def measure(answers_NC: np.ndarray, rows: Sequence[int]) -> float:
        chosen, names = labels[list(rows)], splits.class_names
        if splits.is_multilabel:
            # None where the chosen rows show no class at all
            return float(compute_multilabel(answers_NC, chosen, class_names=names)["average_precision"] or 0)
        return float(compute_multiclass(answers_NC, chosen, class_names=names)["accuracy"])

    return measure


def _batches(rows: datasets.Dataset, transform: ValidationTransform, size: int) -> Iterator[Arrays]:
    for start in range(0, len(rows), size):
        images = rows[start : start + size][IMAGE_COLUMN]
        yield {"pixel_values": torch.stack([transform(load_rgb(image)) for image in images]).numpy()}


def _calibration(
    splits: ClassificationSplits, transform: ValidationTransform, examples: int
) -> Iterator[Arrays]:
    """Training pictures, spread over all rows and without augmentation; validation pictures stay unseen."""
    if splits.train is None:
        raise ExportError("export: calibration needs the training rows, and this run has none")
    count = min(examples, len(splits.train))
    spread = np.linspace(0, len(splits.train) - 1, count).astype(int).tolist()
    return _batches(splits.train.select(spread), transform, CALIBRATION_BATCH)


def _facts(
    model: TimmWrapperForImageClassification, splits: ClassificationSplits, pictures: Pictures
) -> dict[str, Any]:
    return {
        "architecture": model.config.architecture,
        "problem_type": model.config.problem_type,
        "preprocessing": {"colours": "RGB", "levels": 255, **asdict(pictures.steps)},
        "temperature": pictures.temperature,
        "thresholds": None if pictures.thresholds is None else list(pictures.thresholds),
        "data_fingerprint": splits.facts.get("fingerprint"),
    }


def _save_beside(model: TimmWrapperForImageClassification, folder: Path) -> None:
    """The configuration, with the class names also where Optimum looks for them."""
    model.config.save_pretrained(folder)
    file = folder / "config.json"
    values = {**json.loads(file.read_text("utf-8")), "id2label": model.config.id2label}
    write_text(file, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
