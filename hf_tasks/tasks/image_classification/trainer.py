"""ImageClassificationTrainer: transformers.Trainer fed with rows of pictures.

Legend of axes: N examples, C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from transformers import (
    EvalPrediction,
    TimmWrapperForImageClassification,
    TimmWrapperImageProcessor,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import EvalLoopOutput

from hf_tasks.contract.task import ProgressBar
from hf_tasks.data.order import EpochKeys, FollowEpoch, every_row
from hf_tasks.errors import UserError
from hf_tasks.images.batches import RequireLearnableBatches
from hf_tasks.images.dataset import TrainingPictures, ValidationPictures, packed_pictures
from hf_tasks.images.transform import ValidationTransform, build_train_transform
from hf_tasks.metrics.classification import compute_multiclass, compute_multilabel, scalar_metrics
from hf_tasks.metrics.modules import compute_further
from hf_tasks.tasks.image_classification.losses import (
    ClassificationLoss,
    binary_cross_entropy,
    cross_entropy,
    per_example_losses,
)
from hf_tasks.tasks.image_classification.predictions import decode_logits
from hf_tasks.tasks.image_classification.settings import Calibration


class ImageClassificationTrainer(Trainer):
    """Trains and measures a timm classifier on rows of pictures.

    What a training picture looks like depends on the seed, the epoch and its row alone, so batch size,
    worker count and resuming change nothing. Evaluation counts every row once, and its loss is the plain
    (binary) cross entropy whatever loss was trained with, so that runs compare. `calibration` is what is to
    be fitted to the validation rows once training is over; None where nothing is.

    Batches to train on hold bytes, `pixels`; a training step, or `train_dataset.finish(batch)`, makes
    `pixel_values` of them.
    """

    def __init__(
        self,
        model: TimmWrapperForImageClassification,
        args: TrainingArguments,
        *,
        train_dataset: datasets.Dataset | None = None,
        eval_dataset: datasets.Dataset | None = None,
        augmentation: str = "light",
        loss: Callable[..., torch.Tensor] | None = None,
        further_metrics: Sequence[evaluate.Metric] = (),
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        """Rows hold `image` (datasets.Image, not decoded) and `label` (int) or `labels` (C floats, 0 or 1).

        Args:
            model: its config names classes, problem type and picture preparation.
            args: of transformers.
            train_dataset: rows to train on.
            eval_dataset: rows to validate with.
            augmentation: none, light, medium, hard, or the path of a YAML file.
            loss: called as loss(outputs, labels, num_items_in_batch=...); left out: (binary) cross entropy.
            further_metrics: of the evaluate library, computed from decisions.
            callbacks: of transformers.
        """
        config = model.config
        self.is_multilabel = config.problem_type == "multi_label_classification"
        self.class_names = [config.id2label[index] for index in range(config.num_labels)]
        self.plain_loss = ClassificationLoss(binary_cross_entropy if self.is_multilabel else cross_entropy)
        self.further_metrics = further_metrics
        self.calibration: Calibration | None = None
        self.per_class: Mapping[str, Mapping[str, float | None]] = {}
        self._packed: ValidationPictures | None = None
        self._training: TrainingPictures | None = None
        self._label_column = "labels" if self.is_multilabel else "label"
        image_processor = TimmWrapperImageProcessor(config.pretrained_cfg, architecture=config.architecture)
        self._validation_transform = ValidationTransform(image_processor)
        if train_dataset is not None:
            transform = build_train_transform(augmentation, image_processor, seed=args.seed)
            self._training = TrainingPictures(train_dataset, transform, label_column=self._label_column)
        super().__init__(
            model=model,
            args=args,
            data_collator=default_collate,
            train_dataset=self._training,
            eval_dataset=eval_dataset,
            compute_loss_func=loss or self.plain_loss,
            compute_metrics=self._compute_metrics,
            callbacks=[
                FollowEpoch(),
                RequireLearnableBatches(config.pretrained_cfg["input_size"]),
                *callbacks,
            ],
        )

    def get_eval_dataloader(self, eval_dataset: datasets.Dataset | str | None = None) -> DataLoader:
        """Batches of the rows to validate with."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        with every_row(self.args):
            return super().get_eval_dataloader(self._pictures(rows))

    def get_test_dataloader(self, test_dataset: datasets.Dataset) -> DataLoader:
        """Batches of other rows."""
        with every_row(self.args):
            return super().get_test_dataloader(self._pictures(test_dataset))

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Measure the model as the first process has it, which is the one that saves.

        Batch norm has counted other pictures in each process; DistributedDataParallel shares what the first
        has counted only before the next training step.
        """
        if self.args.world_size > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, src=0)
        return super().evaluation_loop(*args, **kwargs)

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """Logits and labels; no loss, as a mean of batch means would depend on the batch size."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits_NC = model(pixel_values=inputs["pixel_values"]).logits
        return None, logits_NC.detach().float(), inputs["labels"]

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Batches on their device, training pictures as the network takes them."""
        inputs = super()._prepare_inputs(inputs)
        return inputs if self._training is None else self._training.finish(inputs)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the Trainer's estimate takes every value of a picture for a token of a text."""
        return 0

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return EpochKeys(len(self.train_dataset), seed=seed)

    def pack_pictures(self, progress: ProgressBar) -> None:
        """Read the pictures of both splits from the cache, which the first process of each machine fills.

        Raises:
            DataError: a picture is not readable, or the disk is full.
        """
        assert self._training is not None
        with self.args.main_process_first(local=True):
            self.train_dataset = packed_pictures(self._training, progress=progress)
            self._packed = packed_pictures(self._pictures(self.eval_dataset), progress=progress)

    def metric_names(self) -> list[str]:
        """Figures that an evaluation gives, known without one."""
        logits_NC = np.eye(2, len(self.class_names), dtype=np.float32)
        labels = logits_NC if self.is_multilabel else np.arange(2)
        return list(self._compute_metrics(EvalPrediction(predictions=logits_NC, label_ids=labels)))

    def _pictures(self, rows: datasets.Dataset) -> ValidationPictures:
        if self._packed is not None and rows is self.eval_dataset:
            return self._packed
        return ValidationPictures(rows, self._validation_transform, label_column=self._label_column)

    def _compute_metrics(self, evaluated: EvalPrediction) -> Mapping[str, Any]:
        logits_NC, labels = evaluated.predictions, evaluated.label_ids
        if not np.isfinite(logits_NC).all():
            raise UserError(
                f"training: the model's outputs are not finite after step {self.state.global_step}; "
                "lower training.learning_rate, or train without fp16"
            )
        found_NC, decisions = decode_logits(logits_NC, self.model.config)
        compute = compute_multilabel if self.is_multilabel else compute_multiclass
        losses_N = per_example_losses(self.plain_loss, logits_NC, labels)
        metrics = compute(found_NC, labels, class_names=self.class_names)
        self.per_class = metrics["per_class"]
        return {
            "loss": losses_N.double().mean().item(),
            **scalar_metrics(metrics),
            **compute_further(self.further_metrics, decisions, labels),
        }
