"""Image classification as a value: the functions that a run calls, in the order it calls them."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
from transformers import TimmWrapperForImageClassification, TrainingArguments

from hf_tasks.contract.answers import ClassificationAnswers, Predictions
from hf_tasks.contract.task import Task
from hf_tasks.data.folders import PICTURE_SUFFIXES
from hf_tasks.data.inspect import slow_progress
from hf_tasks.data.sources import Source
from hf_tasks.errors import DataError, require_measured
from hf_tasks.images.augmentation import require_augmentation
from hf_tasks.images.backbone import OpenedWeights, open_weights, require_buildable
from hf_tasks.images.decode import load_rgb
from hf_tasks.images.prepare import prepare_pictures
from hf_tasks.metrics.modules import compute_further, load_further_metrics
from hf_tasks.tasks.image_classification.calibration import fit_calibration
from hf_tasks.tasks.image_classification.compare import compare_tables, find_pictures
from hf_tasks.tasks.image_classification.data import ClassificationSplits, prepare_rows, prepare_splits
from hf_tasks.tasks.image_classification.examine import examine
from hf_tasks.tasks.image_classification.export import plan_export
from hf_tasks.tasks.image_classification.losses import build_loss, per_example_losses
from hf_tasks.tasks.image_classification.measure import describe_answers
from hf_tasks.tasks.image_classification.model import build_classifier
from hf_tasks.tasks.image_classification.predictions import (
    ClassifierPredictor,
    answer_columns,
    class_texts,
    decode_logits,
)
from hf_tasks.tasks.image_classification.settings import Settings
from hf_tasks.tasks.image_classification.trainer import ImageClassificationTrainer

SPEED = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "eval_model_preparation_time")


def training_defaults(settings: Settings) -> Mapping[str, Any]:
    """TrainingArguments that suit fine-tuning of timm networks; workers leave a core to training."""
    return {
        "num_train_epochs": 10,
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 64,
        "learning_rate": 5e-4,
        "weight_decay": 0.05,
        "lr_scheduler_type": "cosine",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "accuracy" if settings.data.columns.labels is None else "average_precision",
        "greater_is_better": True,
        "logging_steps": 50,
        "report_to": "none",
        "remove_unused_columns": False,
        "dataloader_num_workers": min(8, (os.cpu_count() or 1) // 2),
    }


def open_settings(settings: Settings) -> OpenedWeights:
    """Read weights and augmentation, and build the network once: what needs no data fails before it."""
    require_augmentation(settings.augmentation)
    model = settings.model
    opened = open_weights(
        model.name, pretrained=model.pretrained, weights=model.weights, image_size=model.image_size
    )
    require_buildable(opened)
    return opened


def build_model(
    settings: Settings, opened: OpenedWeights, splits: ClassificationSplits
) -> TimmWrapperForImageClassification:
    """The classifier for the classes of the training rows."""
    return build_classifier(
        opened,
        class_names=splits.class_names,
        is_multilabel=splits.is_multilabel,
        drop_rate=settings.model.drop_rate,
    )


def rows_for(
    settings: Settings, source: Source | None, model: TimmWrapperForImageClassification
) -> ClassificationSplits:
    """Rows to measure a saved model on, with the classes that the model knows."""
    chosen = source or settings.data.validation
    config = model.config
    class_names = tuple(config.id2label[index] for index in range(config.num_labels))
    if isinstance(chosen, float):
        splits = prepare_splits(settings)
        _require_same_classes(splits.class_names, class_names)
        return replace(splits, train=None)
    is_multilabel = config.problem_type == "multi_label_classification"
    rows = prepare_rows(
        chosen,
        settings.data.columns,
        class_names=class_names,
        is_multilabel=is_multilabel,
        key="data.validation" if source is None else "data",
        skips=source is None and settings.on_bad_example == "skip",
        allow_outside=settings.data.allow_outside,
    )
    return ClassificationSplits(None, rows, class_names, is_multilabel, {})


def _require_same_classes(found: tuple[str, ...], known: tuple[str, ...]) -> None:
    if found != known:
        changed = sorted(set(found) ^ set(known))
        raise DataError(
            f"data.train: its classes are not those the model was trained with ({', '.join(changed)}); "
            "the rows have changed since: train anew, or name a source to measure on"
        )


def build_trainer(
    settings: Settings,
    model: TimmWrapperForImageClassification,
    splits: ClassificationSplits,
    arguments: TrainingArguments,
    trust_remote_code: bool,
) -> ImageClassificationTrainer:
    """The trainer with the loss and metrics of the recipe."""
    further = load_further_metrics(
        settings.metrics, trust_remote_code=trust_remote_code, is_multilabel=splits.is_multilabel
    )
    loss = None
    if splits.train is not None:
        labels = splits.labels(splits.train)
        # Truth against truth: a metric that cannot be used says so now, not after an epoch.
        compute_further(further, labels, labels)
        loss = build_loss(
            settings.loss,
            class_names=splits.class_names,
            train_labels=labels,
            is_multilabel=splits.is_multilabel,
        )
    trainer = ImageClassificationTrainer(
        model,
        arguments,
        train_dataset=splits.train,
        eval_dataset=splits.validation,
        augmentation=settings.augmentation,
        loss=loss,
        further_metrics=further,
    )
    if splits.train is not None:
        require_measured(arguments.metric_for_best_model, trainer.metric_names())
        trainer.calibration = settings.calibration
        if settings.cache:
            trainer.pack_pictures(slow_progress)
    return trainer


def compute_predictions(trainer: ImageClassificationTrainer, splits: ClassificationSplits) -> Predictions:
    """All metrics of the validation rows, and a table with path, truth, decision, probabilities and loss.

    What the trainer is to calibrate is fitted first, set in its model's config, and counts already here.
    """
    output = trainer.predict(splits.validation, metric_key_prefix="eval")
    logits_NC, labels, config = output.predictions, output.label_ids, trainer.model.config
    fitted = {}
    if trainer.calibration is not None:
        fitted = fit_calibration(trainer.calibration, logits_NC, labels, splits.class_names)
        config.calibration = fitted
    found_NC, decisions = decode_logits(logits_NC, config)
    answers = ClassificationAnswers(
        class_names=splits.class_names,
        labels=labels,
        probabilities_NC=found_NC,
        decisions=decisions,
        losses_N=per_example_losses(trainer.plain_loss, logits_NC, labels).numpy(),
        paths=splits.validation["path"][:],
        load_picture=lambda example: load_rgb(splits.validation[example]["image"]),
    )
    evaluated = {
        name.removeprefix("eval_"): value for name, value in output.metrics.items() if name not in SPEED
    }
    metrics = {
        **evaluated,
        **compute_further(trainer.further_metrics, decisions, labels),
        **describe_answers(answers, logits_NC, config),
    }
    return Predictions(metrics, _table(answers), answers, {"calibration": fitted} if fitted else {})


def _table(answers: ClassificationAnswers) -> pa.Table:
    return pa.table(
        {
            "path": answers.paths,
            "true": class_texts(answers.labels, answers.class_names),
            **answer_columns(answers.probabilities_NC, answers.decisions, answers.class_names),
            "loss": answers.losses_N,
        }
    )


TASK = Task(
    name="image-classification",
    arguments_class=TrainingArguments,
    file_suffixes=PICTURE_SUFFIXES,
    training_defaults=training_defaults,
    shown_metrics=("loss", "accuracy", "average_precision"),
    open_weights=open_settings,
    prepare=prepare_splits,
    prepare_rows=rows_for,
    build_model=build_model,
    load_model=TimmWrapperForImageClassification.from_pretrained,
    build_trainer=build_trainer,
    compute_predictions=compute_predictions,
    class_figures=lambda trainer: trainer.per_class,
    examine=examine,
    prepare_pictures=prepare_pictures,
    load_predictor=ClassifierPredictor,
    compare_tables=compare_tables,
    find_pictures=find_pictures,
    plan_export=plan_export,
)
