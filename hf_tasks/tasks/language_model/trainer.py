"""LanguageModelTrainer: transformers.Trainer fed with blocks of tokens.

Legend of axes: B batch, N blocks.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import is_peft_available

from hf_tasks.data.order import EpochKeys, FollowEpoch
from hf_tasks.errors import UserError
from hf_tasks.metrics.language import compute_language
from hf_tasks.tasks.language_model.blocks import CausalBlocks, MaskedBlocks, collate
from hf_tasks.tasks.language_model.losses import nats_of_blocks, token_loss
from hf_tasks.tasks.language_model.model import LanguageModel

if is_peft_available():
    from peft import PeftModel

Blocks = CausalBlocks | MaskedBlocks


class LanguageModelTrainer(Trainer):
    """Trains and measures a causal or masked language model on blocks of tokens.

    Which tokens are masked, and the order of the blocks, depend on the seed, the epoch and the block alone.
    Evaluation keeps two numbers a block, never its logits.
    """

    model: Any
    _measured: Any
    """The blocks of the evaluation that is going on."""

    def __init__(
        self,
        model: LanguageModel,
        args: TrainingArguments,
        *,
        train_dataset: Blocks | None = None,
        eval_dataset: Blocks | None = None,
        samples: int = 0,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        """Keep the blocks.

        Args:
            model: with its tokenizer.
            args: of transformers.
            train_dataset: blocks to train on.
            eval_dataset: blocks to measure on.
            samples: held-out documents that a causal model continues in the predictions.
            callbacks: of transformers.
        """
        self.is_causal = model.is_causal
        self.samples = samples
        self._given = model
        super().__init__(
            model=model.model,
            args=args,
            data_collator=collate,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=model.tokenizer,
            compute_loss_func=token_loss,
            compute_metrics=self._compute_metrics,
            callbacks=[FollowEpoch(), *callbacks],
        )

    @property
    def language_model(self) -> LanguageModel:
        """The model as it is now, with its tokenizer."""
        return replace(self._given, model=self.model)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save; what is no checkpoint gets its adapters merged, so that it opens without peft."""
        if not _internal_call and is_peft_available() and isinstance(self.model, PeftModel):
            self.model = self.model_wrapped = self.model.merge_and_unload()
        super().save_model(output_dir, _internal_call)

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Tensor, Tensor]:
        """Nats and number of predicted tokens of each block, (B,); the logits are let go."""
        inputs = self._prepare_inputs(inputs)
        labels_BS = inputs.pop("labels")
        with torch.no_grad(), self.compute_loss_context_manager():
            logits_BSV = model(**inputs, **self._without_cache()).logits
        return None, *nats_of_blocks(logits_BSV, labels_BS)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The loss of a batch; past keys, which training has no use for, are not kept."""
        return super().compute_loss(model, {**inputs, **self._without_cache()}, *args, **kwargs)

    def get_eval_dataloader(self, eval_dataset: Dataset | str | None = None) -> DataLoader:
        """Batches of all blocks to measure on, whatever `dataloader_drop_last` says of training."""
        blocks: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        loader = DataLoader(
            blocks,
            batch_size=self.args.eval_batch_size,
            collate_fn=collate,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """Batches of other blocks."""
        return self.get_eval_dataloader(test_dataset)

    def figures(self, nats_N: Any, tokens_N: Any, blocks: Blocks) -> dict[str, float]:
        """Loss, perplexity and, of a causal model, bits per byte.

        Raises:
            UserError: the losses are not finite.
        """
        text_bytes = blocks.text_bytes if isinstance(blocks, CausalBlocks) else None
        try:
            return compute_language(nats_N, tokens_N, text_bytes=text_bytes)
        except ValueError as error:
            raise UserError(f"training: after step {self.state.global_step}: {error}") from error

    def _compute_metrics(self, evaluated: EvalPrediction) -> dict[str, float]:
        return self.figures(evaluated.predictions, evaluated.label_ids, self._measured)

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> Any:
        """Measure; how many bytes the blocks stand for is asked when the figures are computed."""
        self._measured = dataloader.dataset
        return super().evaluation_loop(dataloader, *args, **kwargs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        assert self.train_dataset is not None
        return EpochKeys(len(self.train_dataset), seed=seed)

    def _without_cache(self) -> dict[str, bool]:
        return {"use_cache": False} if self.is_causal else {}
