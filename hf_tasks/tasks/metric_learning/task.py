"""Metric learning as a value: the functions that a run calls, in the order it calls them."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from transformers import TrainingArguments

from hf_tasks.contract.answers import ExampleColumns, Predictions
from hf_tasks.contract.task import Indexing, Task
from hf_tasks.data.folders import PICTURE_SUFFIXES
from hf_tasks.data.inspect import slow_progress
from hf_tasks.errors import RecipeError
from hf_tasks.images.augmentation import require_augmentation
from hf_tasks.images.backbone import OpenedWeights, open_weights, require_buildable
from hf_tasks.images.prepare import prepare_pictures
from hf_tasks.metrics.approximate import require_faiss
from hf_tasks.metrics.bootstrap import interval_ends
from hf_tasks.metrics.retrieval_intervals import retrieval_intervals
from hf_tasks.tasks.metric_learning.compare import compare_tables, find_pictures
from hf_tasks.tasks.metric_learning.data import RetrievalSplits, prepare_splits, prepare_validation
from hf_tasks.tasks.metric_learning.examine import examine
from hf_tasks.tasks.metric_learning.export import exported_module, plan_export
from hf_tasks.tasks.metric_learning.loss_modules import build_loss
from hf_tasks.tasks.metric_learning.measure import measure_compression
from hf_tasks.tasks.metric_learning.model import (
    Embedder,
    build_embedder,
    embedding_width,
    load_cutoff,
    load_embedder,
    with_pooling,
)
from hf_tasks.tasks.metric_learning.predictions import EmbeddingPredictor, build_predictions
from hf_tasks.tasks.metric_learning.sampler import ClassBatchSampler
from hf_tasks.tasks.metric_learning.settings import Settings
from hf_tasks.tasks.metric_learning.trainer import MetricLearningTrainer


def training_defaults(settings: Settings) -> Mapping[str, Any]:
    """TrainingArguments that suit fine-tuning of timm networks; batches of classes decide the batch size."""
    batch_size = 32
    if settings.batches is not None:
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        batch_size = max(1, settings.batches.classes * settings.batches.pictures // processes)
    return {
        "num_train_epochs": 10,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": 64,
        "learning_rate": 5e-4,
        "weight_decay": 0.05,
        "lr_scheduler_type": "cosine",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "map_at_r",
        "greater_is_better": True,
        "logging_steps": 50,
        "report_to": "none",
        "remove_unused_columns": False,
        "dataloader_num_workers": min(8, (os.cpu_count() or 1) // 2),
    }


def open_settings(settings: Settings) -> OpenedWeights:
    """Read weights and augmentation, and build network and loss once: what needs no data fails before it."""
    require_augmentation(settings.augmentation)
    if settings.approximate_above is not None:
        require_faiss("approximate_above")
    build_loss(settings.loss, classes=2, width=settings.model.embedding_size or 2)
    model = settings.model
    opened = open_weights(
        model.name, pretrained=model.pretrained, weights=model.weights, image_size=model.image_size
    )
    require_buildable(with_pooling(opened, model.pooling))
    return opened


def build_model(settings: Settings, opened: OpenedWeights, splits: RetrievalSplits) -> Embedder:
    """The embedding network; it knows nothing of the classes."""
    return build_embedder(
        opened, embedding_size=settings.model.embedding_size, pooling=settings.model.pooling
    )


def build_trainer(
    settings: Settings,
    model: Embedder,
    splits: RetrievalSplits,
    arguments: TrainingArguments,
    trust_remote_code: bool,
) -> MetricLearningTrainer:
    """The trainer with the loss, batches and measures of the recipe."""
    loss = sampler = None
    if splits.train is not None:
        loss = build_loss(settings.loss, classes=len(splits.class_names), width=embedding_width(model))
        sampler = _sampler(settings, arguments)
    trainer = MetricLearningTrainer(
        model,
        arguments,
        train_dataset=splits.train,
        eval_dataset=splits.validation,
        augmentation=settings.augmentation,
        loss=loss,
        sampler=sampler,
        measure={
            "ks": settings.ks,
            "false_accept_rate": settings.cutoff.false_accept_rate,
            "approximate_above": settings.approximate_above,
            "flip_average": settings.flip_average,
        },
    )
    if splits.train is not None:
        if settings.cache:
            trainer.pack_pictures(slow_progress)
        trainer.get_train_dataloader()  # refuses what the sampler refuses, before the first step
    return trainer


def compute_predictions(trainer: MetricLearningTrainer, splits: RetrievalSplits) -> Predictions:
    """Figures of the validation rows with intervals, a table of the queries, and those of their mistakes."""
    if trainer.retrieval is None or trainer.state.global_step == 0:
        trainer.predict(splits.validation, metric_key_prefix="eval")
    assert trainer.retrieval is not None
    retrieval = trainer.retrieval
    is_known_Q = retrieval.scores.matches_Q > 0
    metrics = {
        **retrieval.figures,
        "queries": len(is_known_Q),
        "unknown_queries": int((~is_known_Q).sum()),
        "gallery": len(retrieval.gallery_rows_G),
        "intervals": interval_ends(retrieval_intervals(retrieval.scores, distance=retrieval.cutoff_distance)),
        "compression": measure_compression(splits.validation, retrieval, device=trainer.args.device),
    }
    return build_predictions(retrieval, splits, metrics=metrics)


def _sampler(
    settings: Settings, arguments: TrainingArguments
) -> Callable[[np.ndarray, int], ClassBatchSampler] | None:
    """What makes the batches of classes, if the recipe or its loss asks for them."""
    batches = settings.batches
    if batches is None:
        return None
    wanted = batches.classes * batches.pictures
    found = arguments.train_batch_size * arguments.world_size
    if found != wanted:
        raise RecipeError(
            [
                f"training.per_device_train_batch_size: found {arguments.train_batch_size} on "
                f"{arguments.world_size} processes, {found} pictures a step; sampler.classes * "
                f"sampler.pictures is {batches.classes} * {batches.pictures} = {wanted}; leave it out, or "
                "make both agree"
            ]
        )
    classes, pictures = batches.classes, batches.pictures
    return lambda labels_N, seed: ClassBatchSampler(labels_N, classes=classes, pictures=pictures, seed=seed)


TASK = Task(
    name="metric-learning",
    arguments_class=TrainingArguments,
    file_suffixes=PICTURE_SUFFIXES,
    training_defaults=training_defaults,
    shown_metrics=("cmc_at_1", "map_at_r", "mrr", "wrong"),
    open_weights=open_settings,
    prepare=prepare_splits,
    prepare_rows=lambda settings, source, model: prepare_validation(settings, source),
    build_model=build_model,
    load_model=load_embedder,
    build_trainer=build_trainer,
    compute_predictions=compute_predictions,
    examine=examine,
    prepare_pictures=prepare_pictures,
    load_predictor=EmbeddingPredictor,
    compare_tables=compare_tables,
    example_columns=ExampleColumns(accepted="is_accepted"),
    find_pictures=find_pictures,
    plan_export=plan_export,
    exported_module=exported_module,
    indexing=Indexing(
        entry="path",
        file_suffixes=PICTURE_SUFFIXES,
        load_embedder=EmbeddingPredictor,
        load_cutoff=load_cutoff,
    ),
)
