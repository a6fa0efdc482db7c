"""Sets weights to zero while training or after it; what is saved holds plain weights, never masks."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.pytorch_utils import Conv1D

from hf_tasks.errors import UserError

Prunable = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
# Conv1D is the linear layer of GPT-2, its weight transposed.
PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, Conv1D)


class Prune(TrainerCallback):
    """Prunes through torch.nn.utils.prune, and makes every mask permanent at once.

    Checkpoints, exports and resuming therefore see an ordinary model. Zeros are kept through training by
    setting them again after each optimizer step; after resuming, the zeros of the checkpoint are the mask.
    """

    def __init__(
        self,
        *,
        method: Literal["l1", "ln-structured", "random"],
        amount: float,
        layers: Sequence[str] | None = None,
        at: Literal["epoch", "end"] = "epoch",
        schedule: Literal["linear", "cubic", "constant"] = "cubic",
        norm: float = 2.0,
    ) -> None:
        """Prune at the end of every epoch, or once after training.

        Args:
            method: smallest weights, filters of the smallest norm, or weights by lot.
            amount: share of each layer's weights (or filters) that is zero in the end, in (0, 1).
            layers: patterns of module names; None prunes every convolution and linear layer.
            at: epoch, or end: after the best model is loaded again.
            schedule: how the amount grows over the epochs; the last epoch trains with all of it.
            norm: order of the norm for ln-structured.
        """
        self.method = method
        self.amount = amount
        self.layers = layers
        self.at = at
        self.schedule = schedule
        self.norm = norm
        self._masks: dict[str, Tensor] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the layers; after resuming, take the zeros of the checkpoint as masks."""
        modules = prunable_layers(kwargs["model"], self.layers)
        if self.at == "epoch" and state.global_step > 0:
            self._masks = {name: module.weight != 0 for name, module in modules.items()}

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set what was pruned to zero again."""
        modules = prunable_layers(kwargs["model"], self.layers) if self._masks else {}
        with torch.no_grad():
            for name, mask in self._masks.items():
                modules[name].weight.mul_(mask)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Prune to this epoch's amount, before the epoch is measured and saved."""
        if self.at == "epoch":
            done = round(state.epoch or 0)
            share = scheduled_share(done, last=max(1, round(state.num_train_epochs) - 1), kind=self.schedule)
            self._prune(kwargs["model"], self.amount * share, seed=args.seed + done)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the sparsity to the figures of the evaluation and to the history."""
        kwargs["metrics"]["eval_sparsity"] = compute_sparsity(kwargs["model"], self.layers)
        if state.log_history:
            state.log_history[-1]["eval_sparsity"] = kwargs["metrics"]["eval_sparsity"]

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Prune to the whole amount; a best model that was loaded again may come from an earlier epoch."""
        self._prune(kwargs["model"], self.amount, seed=args.seed)

    def _prune(self, model: nn.Module, amount: float, *, seed: int) -> None:
        modules = prunable_layers(model, self.layers)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for name, module in modules.items():
                prune_layer(module, method=self.method, amount=amount, norm=self.norm)
                self._masks[name] = module.weight != 0


def prunable_layers(model: nn.Module, patterns: Sequence[str] | None) -> dict[str, Prunable]:
    """Convolutions and linear layers by name; not those whose weight is an embedding of tokens as well.

    Args:
        model: what is trained.
        patterns: of names, as fnmatch understands them; None takes every layer.

    Raises:
        UserError: a pattern fits no layer, or there is none.
    """
    modules = dict(model.named_modules())
    embeddings = {id(module.weight) for module in modules.values() if isinstance(module, nn.Embedding)}
    layers = {
        name: module
        for name, module in modules.items()
        if isinstance(module, PRUNABLE) and id(module.weight) not in embeddings
    }
    if not layers:
        raise UserError("pruning: this model has no convolution or linear layer; leave the section out")
    if patterns is None:
        return layers
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in layers):
            near = ", ".join(list(layers)[:5])
            raise UserError(f"pruning.layers: no layer '{pattern}'; wanted patterns of names such as {near}")
    return {
        name: module
        for name, module in layers.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def prune_layer(
    module: Prunable, *, method: Literal["l1", "ln-structured", "random"], amount: float, norm: float = 2.0
) -> None:
    """Set a share of a layer's weights to zero for good; zeros that are there count towards it and stay.

    Args:
        module: with a `weight`; its filters lie along the first axis, in Conv1D along the second.
        method: smallest weights, filters of the smallest norm, or weights by lot.
        amount: share that is zero afterwards, in [0, 1), rounded to whole weights or filters.
        norm: order of the norm for ln-structured.
    """
    weight = module.weight
    is_kept = weight.detach() != 0
    axis = 1 if isinstance(module, Conv1D) else 0
    is_filter_kept = is_kept.transpose(0, axis).flatten(1).any(1)
    is_unit_kept = is_filter_kept if method == "ln-structured" else is_kept
    units, zeros = is_unit_kept.numel(), int((~is_unit_kept).sum())
    further = min(round(amount * units), units - 1) - zeros
    if further <= 0:
        return
    prune.custom_from_mask(module, "weight", is_kept.to(weight.dtype))
    if method == "l1":
        prune.l1_unstructured(module, "weight", amount=further)
    elif method == "random":
        prune.random_unstructured(module, "weight", amount=further)
    else:
        prune.ln_structured(module, "weight", amount=further, n=norm, dim=axis)
    prune.remove(module, "weight")


def scheduled_share(epoch: int, *, last: int, kind: Literal["linear", "cubic", "constant"]) -> float:
    """Share of the amount that is pruned after so many epochs.

    Args:
        epoch: epochs that are done, >= 1.
        last: the epoch from which all of it is pruned.
        kind: constant prunes all at once; cubic follows arXiv:1710.01878, eq. 1.
    """
    if kind == "constant":
        return 1.0
    progress = min(1.0, epoch / last)
    return progress if kind == "linear" else 1 - (1 - progress) ** 3


def compute_sparsity(model: nn.Module, patterns: Sequence[str] | None = None) -> float:
    """Share of zeros among the weights of the prunable layers."""
    weights = [module.weight for module in prunable_layers(model, patterns).values()]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / max(1, sum(weight.numel() for weight in weights))
