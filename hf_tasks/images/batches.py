"""Whether a network learns from batches as small as the last one of an epoch."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_tasks.errors import RecipeError


class RequireLearnableBatches(TrainerCallback):
    """Refuses a run in which a single picture is a batch, where the network cannot learn from one.

    Batch norm wants two values of each channel. Where a network has shrunk its pictures to one place, a lone
    picture has one, and PyTorch would say so when the first epoch is all but over.
    """

    def __init__(self, input_size: Sequence[int]) -> None:
        """Args: input_size: (channels, height, width) of the network's input."""
        self.input_size = input_size

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        train_dataloader: DataLoader,
        **kwargs: Any,
    ) -> None:
        """Try it, if a batch will be that small.

        Raises:
            RecipeError: the network cannot learn from it.
        """
        rows, size = len(train_dataloader.dataset), args.train_batch_size  # type: ignore[arg-type]
        if not _has_lone_row(rows, args) or state.max_steps < math.ceil(
            len(train_dataloader) / args.gradient_accumulation_steps
        ):
            return
        if not learns_from_one(model, self.input_size):
            wanted = "dataloader_drop_last: true, or another size" if size > 1 else "at least 2"
            key = f"training.per_device_train_batch_size: {rows} pictures in batches of {size}"
            shown = list(self.input_size)
            raise RecipeError(
                [f"{key} leave one alone, and batch norm cannot learn from one of {shown}; wanted {wanted}"]
            )


def _has_lone_row(rows: int, args: TrainingArguments) -> bool:
    """Whether a batch of one row occurs; several processes fill their last batches up."""
    if args.world_size > 1 or args.train_batch_size == 1:
        return args.train_batch_size == 1
    return rows % args.train_batch_size == 1 and not args.dataloader_drop_last


def learns_from_one(model: nn.Module, input_size: Sequence[int]) -> bool:
    """Whether a model in training takes a batch of one picture; it does not change, nor does chance."""
    tried = copy.deepcopy(model).train()
    device = next(tried.parameters()).device
    with torch.random.fork_rng(), torch.no_grad():
        try:
            tried(pixel_values=torch.zeros(1, *input_size, device=device))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            return False
    return True
