"""SiameseTrainer: sentence-transformers' trainer, made exact over resuming, processes and batch sizes.

Legend of axes: B batch, T distinct texts, D width of the embeddings.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Sampler
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from hf_tasks.data.order import EpochOrder, FollowEpoch
from hf_tasks.errors import UserError
from hf_tasks.metrics.classification import scalar_metrics
from hf_tasks.tasks.siamese.data import TEXT_COLUMNS, texts_of
from hf_tasks.tasks.siamese.measure import measure
from hf_tasks.tasks.siamese.model import PairModel, load_weights, save_pair_model
from hf_tasks.tasks.siamese.sampler import DistinctBatches
from hf_tasks.tasks.siamese.settings import Analytics
from hf_tasks.tasks.siamese.texts import PairsOfTexts, pairs_of_texts


class SiameseTrainer(SentenceTransformerTrainer):
    """Trains an encoder, and the head if there is one, on pairs of texts, and measures them.

    The order of the rows depends on the seed and the epoch alone. Every distinct text is embedded once,
    each process taking its share, and the figures are computed from all of them.
    """

    def __init__(
        self,
        model: PairModel,
        args: SentenceTransformerTrainingArguments,
        *,
        train_dataset: datasets.Dataset | None = None,
        eval_dataset: datasets.Dataset | None = None,
        loss: nn.Module | None = None,
        distinct_batches: bool = False,
        analytics: Analytics | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        """Rows hold `text_1`, `text_2`, or `negative` as well, or `label` as well.

        Args:
            model: encoder, head and threshold.
            args: of sentence-transformers.
            train_dataset: rows to train on; without them the model's threshold is left as it is.
            eval_dataset: rows to measure on.
            loss: called as loss(inputs of each text column, labels); needed for training.
            distinct_batches: keep equal texts out of a batch.
            analytics: which tables about the texts the predictions come with.
            callbacks: of transformers.
        """
        self.pair_model = model
        self.distinct_batches = distinct_batches
        self.analytics = analytics
        self.fits_threshold = train_dataset is not None
        self._starts_optimizer_step = True
        super().__init__(
            model=model.encoder,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            loss=loss,
            callbacks=[FollowEpoch(), *callbacks],
        )
        # Their losses are means over a batch: the Trainer has to divide by the accumulated batches.
        self.model_accepts_loss_kwargs = False
        model.to(self.args.device)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """A step; the head is outside the wrapped encoder, so its gradient is cleared and averaged here."""
        head = self.pair_model.head
        if head is None:
            return super().training_step(model, inputs, num_items_in_batch)
        if self._starts_optimizer_step:
            head.zero_grad()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._starts_optimizer_step = self.accelerator.sync_gradients
        if self.accelerator.sync_gradients:
            for parameter in head.parameters():
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")
        return loss

    def get_train_dataloader(self) -> DataLoader:
        """Batches of pairs, in the order of the epoch."""
        assert self.train_dataset is not None
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        order = EpochOrder(len(self.train_dataset), seed=seed)
        size, drop_last = self.args.train_batch_size, self.args.dataloader_drop_last
        batches: Sampler[list[int]] = (
            DistinctBatches(order, size, drop_last, texts=texts_of(self.train_dataset))
            if self.distinct_batches
            else BatchSampler(order, size, drop_last)
        )
        self.accelerator.even_batches = False
        loader = DataLoader(
            self.train_dataset, batch_sampler=batches, collate_fn=self._pair_inputs, **self._loading()
        )
        return self.accelerator.prepare(loader)

    def get_eval_dataloader(self, eval_dataset: datasets.Dataset | str | None = None) -> DataLoader:
        """Batches of the distinct texts of the rows to measure on."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        loader = DataLoader(
            pairs_of_texts(rows),
            batch_size=self.args.eval_batch_size,
            collate_fn=self.pair_model.preprocess,
            **self._loading(),
        )
        self.accelerator.even_batches = True
        return self.accelerator.prepare(loader)

    def get_test_dataloader(self, test_dataset: datasets.Dataset) -> DataLoader:
        """The same of other rows."""
        return self.get_eval_dataloader(test_dataset)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Tensor, None]:
        """Embeddings of a batch of texts, (B, D)."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            embeddings_BD = model(inputs)["sentence_embedding"]
        return None, embeddings_BD.detach().float(), None

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Embed all texts, then measure the pairs; `predictions` are the embeddings, (T, D).

        Raises:
            UserError: the embeddings are not finite.
        """
        output = super().evaluation_loop(dataloader, description, False, ignore_keys, metric_key_prefix)
        pairs = dataloader.dataset
        assert isinstance(pairs, PairsOfTexts)
        figures = self._figures(pairs, output.predictions)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in figures.items()})
        return output

    def _figures(self, pairs: PairsOfTexts, embeddings_TD: Any) -> Mapping[str, float]:
        try:
            measured = measure(self.pair_model, pairs, embeddings_TD, fit=self.fits_threshold)
        except ValueError as error:
            raise UserError(f"training: after step {self.state.global_step}: {error}") from error
        self.pair_model.threshold = measured.threshold
        return scalar_metrics(measured.metrics)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save; what is no checkpoint gets its adapters merged, and a threshold if it has none yet."""
        if not _internal_call:
            self.pair_model.merge_adapters()
            if self.pair_model.threshold is None and self.eval_dataset is not None:
                self.evaluate()
        super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not self.args.should_save:  # transformers 5 asks every process
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_pair_model(self.pair_model, folder)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        load_weights(self.pair_model, Path(checkpoint_path))

    def _load_best_model(self) -> None:
        # The library's own logs a failure and goes on with the last weights.
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Nothing: the library's card would quote texts of the training rows."""

    def _pair_inputs(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Model inputs of a batch: those of each text column, with its name in front, and `label`."""
        inputs: dict[str, Any] = {}
        if "label" in rows[0]:
            inputs["label"] = torch.tensor([row["label"] for row in rows])
        for column in TEXT_COLUMNS:
            if column in rows[0]:
                of_column = self.pair_model.preprocess([row[column] for row in rows])
                inputs.update({f"{column}_{name}": value for name, value in of_column.items()})
        return inputs

    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.args.dataloader_num_workers,
            "pin_memory": self.args.dataloader_pin_memory,
            "persistent_workers": self.args.dataloader_persistent_workers,
            "prefetch_factor": self.args.dataloader_prefetch_factor,
        }
