"""Stops a training whose loss is not a finite number, and names the step and the examples of its batch."""

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

import datasets
import torch
from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_tasks.errors import UserError

SHOWN = 32


def paths_of(rows: datasets.Dataset | None) -> Sequence[str] | None:
    """Text that people know each training row by; None where rows have no files."""
    return rows["path"] if rows is not None and "path" in rows.column_names else None


class RequireFiniteLoss(TrainerCallback):
    """Looks at the losses since the last log when the Trainer logs, as only then they are on the processor.

    The logged loss is the mean of all processes, so all of them stop together. It hides what is not finite
    unless `logging_nan_inf_filter` is off.
    """

    def __init__(self, trainer: Trainer, paths: Sequence[str] | None) -> None:
        """Follow the steps of a trainer.

        Args:
            trainer: whose training is watched.
            paths: of its training rows, as paths_of gives them.
        """
        self.trainer, self.paths = trainer, paths
        self._losses: list[tuple[int, int, int, torch.Tensor]] = []  # step, epoch, batch of the epoch, loss
        self._epoch, self._batch = 0, 0
        self._step = trainer.training_step
        # No callback is told the loss of a step.
        trainer.training_step = self._watched_step

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count the batches of this epoch; a resumed run begins within one."""
        steps = math.ceil(len(kwargs["train_dataloader"]) / args.gradient_accumulation_steps)
        self._epoch, done = divmod(state.global_step, steps)
        self._batch = done * args.gradient_accumulation_steps

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Stop if the loss that is logged is not finite.

        Raises:
            UserError: with step, learning rate and the examples of the first batch that went wrong.
        """
        found = (logs or {}).get("loss")
        if found is not None and not math.isfinite(found):
            raise UserError(self._describe(found, (logs or {}).get("learning_rate")))
        if found is not None:
            self._losses.clear()

    def _watched_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = self._step(*args, **kwargs)
        self._losses.append((self.trainer.state.global_step + 1, self._epoch, self._batch, loss.detach()))
        self._batch += 1
        return loss

    def _describe(self, found: float, learning_rate: float | None) -> str:
        bad = (entry for entry in self._losses if not torch.isfinite(entry[3]).all())
        first = next(bad, None)
        mine = [] if first is None else [(first[0], self._examples(first[1], first[2]))]
        everywhere = sorted(gather_object(mine)) or [(self.trainer.state.global_step, [])]
        step = everywhere[0][0]
        examples = [name for at, names in everywhere if at == step for name in names]
        batch = f"; its batch: {', '.join(examples[:SHOWN])}" if examples else ""
        more = f" and {len(examples) - SHOWN} more" if len(examples) > SHOWN else ""
        return (
            f"training: the loss is {found} at step {step}, with learning rate {learning_rate:g} at the "
            f"last log{batch}{more}; lower training.learning_rate, look at these, or train without fp16"
        )

    def _examples(self, epoch: int, batch: int) -> list[str]:
        """The rows of a batch that has gone by, by drawing the epoch's order once more."""
        if self.paths is None:
            return []
        loader = self.trainer.get_train_dataloader()
        loader.set_epoch(epoch)
        keys: Sequence[Any] = next(islice(iter(loader.batch_sampler), batch, None), [])
        return [self.paths[getattr(key, "row", key)] for key in keys]
