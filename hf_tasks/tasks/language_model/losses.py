"""The loss of language models: cross entropy over the tokens that have a label.

Axes: B batch, S tokens of a block, V vocabulary.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from hf_tasks.tasks.language_model.blocks import NO_LABEL


class HasLogits(Protocol):
    """What a model returns: `logits` of shape (B, S, V)."""

    logits: Tensor


def token_loss(
    outputs: HasLogits, labels_BS: Tensor, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """Mean over the labels of an optimizer step, exact under gradient accumulation and over processes.

    Called as the Trainer calls its `compute_loss_func`; labels stand at the place that predicts them.

    Args:
        outputs: what the model returned.
        labels_BS: token numbers, NO_LABEL where nothing is predicted.
        num_items_in_batch: labels of the whole optimizer step; left out: those of this batch.
    """
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = functional.cross_entropy(
        outputs.logits.flatten(0, 1).float(), labels_BS.flatten(), ignore_index=NO_LABEL, reduction=reduction
    )
    return loss if num_items_in_batch is None else loss / num_items_in_batch


def nats_of_blocks(logits_BSV: Tensor, labels_BS: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the losses of each block, float32 (B,), and its number of labels, int64 (B,).

    One block is turned to float32 at a time, because a vocabulary is wide.
    """
    sums = [
        functional.cross_entropy(logits_SV.float(), labels_S, ignore_index=NO_LABEL, reduction="sum")
        for logits_SV, labels_S in zip(logits_BSV, labels_BS, strict=True)
    ]
    return torch.stack(sums), (labels_BS != NO_LABEL).sum(dim=1)
