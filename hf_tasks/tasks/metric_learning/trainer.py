"""MetricLearningTrainer: transformers.Trainer for embeddings, with its loss inside the model that is wrapped.

N rows, Q queries, D width.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from transformers import (
    EvalPrediction,
    TimmWrapperImageProcessor,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import SAFE_WEIGHTS_NAME

from hf_tasks.contract.task import ProgressBar
from hf_tasks.data.order import EpochKeys, FollowEpoch, every_row
from hf_tasks.errors import UserError
from hf_tasks.images.dataset import TrainingPictures, ValidationPictures, packed_pictures
from hf_tasks.images.transform import ValidationTransform, build_train_transform
from hf_tasks.metrics.retrieval import KS
from hf_tasks.tasks.metric_learning.measure import Retrieval, measure_retrieval
from hf_tasks.tasks.metric_learning.model import Embedder, EmbedderWithLoss, embed
from hf_tasks.tasks.metric_learning.sampler import ClassBatchSampler

LOSS_FILE = "loss.safetensors"
LABEL_COLUMN = "label"


class MetricLearningTrainer(Trainer):
    """Trains embeddings of pictures and measures them by looking for queries in a gallery.

    What a training picture looks like depends on the seed, the epoch and its row alone. Evaluation ranks
    exactly, every process a share of the queries. The distance beyond which queries are refused is fitted
    at each evaluation and kept in the configuration of the model, so it is saved with it; where no loss is
    given, a model is only measured, at the distance that it came with.

    Batches to train on hold bytes, `pixels`; a training step, or `train_dataset.finish(batch)`, makes
    `pixel_values` of them.
    """

    def __init__(
        self,
        model: Embedder,
        args: TrainingArguments,
        *,
        train_dataset: datasets.Dataset | None = None,
        eval_dataset: datasets.Dataset | None = None,
        augmentation: str = "light",
        loss: nn.Module | None = None,
        sampler: Callable[[np.ndarray, int], ClassBatchSampler] | None = None,
        measure: Mapping[str, Any] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        """Rows hold `image` and `label`; those to evaluate also what RetrievalSplits says.

        Args:
            model: its config names picture preparation and, once fitted, `cutoff_distance`.
            args: of transformers.
            train_dataset: rows to train on.
            eval_dataset: queries and gallery.
            augmentation: none, light, medium, hard, or the path of a YAML file.
            loss: called as loss(embeddings, labels); a module whose weights are trained with the model.
            sampler: (labels, seed) -> batches of classes; left out: shuffled rows.
            measure: `ks`, `false_accept_rate`, `approximate_above` and `flip_average`; left out: the defaults
                of the recipe.
            callbacks: of transformers.
        """
        chosen = dict(measure or {})
        self.ks: Sequence[int] = chosen.pop("ks", KS)
        self.false_accept_rate: float | None = chosen.pop("false_accept_rate", None)
        self.approximate_above: int | None = chosen.pop("approximate_above", None)
        model.config.flip_average = chosen.pop("flip_average", False)
        assert not chosen, f"measure: unknown {', '.join(chosen)}"
        self.retrieval: Retrieval | None = None
        self._sampler = sampler
        self._packed: ValidationPictures | None = None
        self._training: TrainingPictures | None = None
        self._measured_rows: datasets.Dataset | None = eval_dataset
        config = model.config
        image_processor = TimmWrapperImageProcessor(config.pretrained_cfg, architecture=config.architecture)
        self._validation_transform = ValidationTransform(image_processor)
        self._labels_N = None if train_dataset is None else np.asarray(train_dataset[LABEL_COLUMN][:])
        if train_dataset is not None:
            transform = build_train_transform(augmentation, image_processor, seed=args.seed)
            self._training = TrainingPictures(train_dataset, transform, label_column=LABEL_COLUMN)
        super().__init__(
            model=EmbedderWithLoss(model, loss),
            args=args,
            data_collator=default_collate,
            train_dataset=self._training,
            eval_dataset=eval_dataset,
            compute_metrics=self._compute_metrics,
            callbacks=[FollowEpoch(), *callbacks],
        )

    @property
    def embedder(self) -> Embedder:
        """The network without the loss, outside any wrapper."""
        return self.accelerator.unwrap_model(self.model).embedder

    def get_eval_dataloader(self, eval_dataset: datasets.Dataset | str | None = None) -> DataLoader:
        """Batches of the rows to evaluate."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        with every_row(self.args):
            return super().get_eval_dataloader(self._pictures(rows))

    def get_test_dataloader(self, test_dataset: datasets.Dataset) -> DataLoader:
        """Batches of other rows."""
        with every_row(self.args):
            return super().get_test_dataloader(self._pictures(test_dataset))

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Tensor, Tensor]:
        """Embeddings and labels; no loss, as classes to evaluate may be others than those trained on."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            embeddings_BD = embed(self.embedder, inputs["pixel_values"])
        return None, embeddings_BD.detach(), inputs["labels"]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the network; in a checkpoint also the weights of the loss.

        The model that leaves training is measured first, so that the distance in its configuration is its
        own: the best model is of an earlier step than the last evaluation.
        """
        if not _internal_call and self.eval_dataset is not None:
            self.predict(self.eval_dataset, metric_key_prefix="eval")
        super().save_model(output_dir, _internal_call)
        loss_file = Path(output_dir or self.args.output_dir) / LOSS_FILE
        if not _internal_call and self.args.should_save:
            loss_file.unlink(missing_ok=True)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the network as transformers saves it, which AutoModel loads, and the loss beside it."""
        if not self.args.should_save:  # transformers 5 asks every process
            return
        folder = Path(output_dir or self.args.output_dir)
        state = self.model.state_dict() if state_dict is None else state_dict
        self.embedder.save_pretrained(folder, state_dict=_below(state, "embedder."))
        loss_state = _below(state, "loss.")
        if loss_state:
            save_file({name: value.contiguous() for name, value in loss_state.items()}, folder / LOSS_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._load(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        self._load(Path(self.state.best_model_checkpoint))

    def _load(self, folder: Path) -> None:
        wrapped = self.accelerator.unwrap_model(self.model)
        wrapped.embedder.load_state_dict(load_file(folder / SAFE_WEIGHTS_NAME))
        if wrapped.loss is not None and (folder / LOSS_FILE).is_file():
            wrapped.loss.load_state_dict(load_file(folder / LOSS_FILE))

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Batches on their device, training pictures as the network takes them."""
        inputs = super()._prepare_inputs(inputs)
        return inputs if self._training is None else self._training.finish(inputs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        assert self._labels_N is not None
        if self._sampler is None:
            return EpochKeys(len(self._labels_N), seed=seed)
        return self._sampler(self._labels_N, seed)

    def pack_pictures(self, progress: ProgressBar) -> None:
        """Read the pictures of both splits from the cache, which the first process of each machine fills.

        Raises:
            DataError: a picture is not readable, or the disk is full.
        """
        assert self._training is not None
        with self.args.main_process_first(local=True):
            self.train_dataset = packed_pictures(self._training, progress=progress)
            self._packed = packed_pictures(self._validation_pictures(self.eval_dataset), progress=progress)

    def _pictures(self, rows: datasets.Dataset) -> Dataset:
        self._measured_rows = rows
        return _WholeBatches(self._validation_pictures(rows), self.args.eval_batch_size)

    def _validation_pictures(self, rows: datasets.Dataset) -> ValidationPictures:
        if self._packed is not None and rows is self.eval_dataset:
            return self._packed
        return ValidationPictures(rows, self._validation_transform, label_column=LABEL_COLUMN)

    def _compute_metrics(self, evaluated: EvalPrediction) -> Mapping[str, Any]:
        rows = self._measured_rows
        assert rows is not None
        embeddings_ND = np.asarray(evaluated.predictions)[: len(rows)]
        if not np.isfinite(embeddings_ND).all():
            raise UserError(
                f"training: the model's outputs are not finite after step {self.state.global_step}; "
                "lower training.learning_rate, or train without fp16"
            )
        config = self.embedder.config
        is_fitted = self.accelerator.unwrap_model(self.model).loss is None
        self.retrieval = measure_retrieval(
            rows,
            embeddings_ND,
            ks=self.ks,
            false_accept_rate=self.false_accept_rate,
            cutoff_distance=getattr(config, "cutoff_distance", None) if is_fitted else None,
            device=self.args.device,
            approximate_above=self.approximate_above,
        )
        config.cutoff_distance = self.retrieval.cutoff_distance
        return self.retrieval.figures


class _WholeBatches(Dataset):
    """Pictures filled up to whole batches with the first ones again.

    So every batch has the same rows for any number of processes, and with them the same rounding.
    """

    def __init__(self, pictures: ValidationPictures, batch_size: int) -> None:
        self.pictures = pictures
        self.length = -(-len(pictures) // batch_size) * batch_size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.pictures[row % len(self.pictures)]


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
