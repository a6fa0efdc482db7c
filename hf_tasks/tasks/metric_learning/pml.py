"""Losses of pytorch-metric-learning by name, where it is installed."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from hf_tasks.data.problems import nearest
from hf_tasks.errors import RecipeError
from hf_tasks.tasks.metric_learning.gather import gather_with_gradients

PACKAGE = "pytorch_metric_learning"
# The loss itself gives these.
OURS = ("num_classes", "embedding_size")
# What constructors raise on values that they cannot use.
UNUSABLE = (ValueError, TypeError, AssertionError, KeyError)


class PmlLoss(nn.Module):
    """A loss of pytorch-metric-learning on the embeddings of all processes, in float32."""

    def __init__(self, name: str, values: Mapping[str, Any], *, classes: int, width: int) -> None:
        """Build the loss.

        Args:
            name: of its class, such as CircleLoss.
            values: its arguments, without number of classes and width.
            classes: number of training classes.
            width: of the embeddings.

        Raises:
            RecipeError: it is not installed, or the arguments are not those of the loss.
        """
        super().__init__()
        if find_spec(PACKAGE) is None:
            raise RecipeError(
                [f"loss.name: pml/{name} needs pytorch-metric-learning; pip install pytorch-metric-learning"]
            )
        loss_class = getattr(import_module(f"{PACKAGE}.losses"), name)
        known = _argument_names(loss_class)
        unknown = [key for key in values if key not in known or key in OURS]
        if unknown:
            taken = sorted(known - set(OURS))
            raise RecipeError(
                [
                    f"loss.{key}: pml/{name} takes {', '.join(taken) or 'no arguments'}{nearest(key, taken)}"
                    for key in unknown
                ]
            )
        sizes = {"num_classes": classes, "embedding_size": width}
        try:
            self.loss = loss_class(**values, **{key: sizes[key] for key in OURS if key in known})
        except UNUSABLE as error:
            raise RecipeError([f"loss: pml/{name} refuses these arguments: {error}"]) from error

    def forward(self, embeddings_BD: Tensor, labels_B: Tensor) -> Tensor:
        """The loss of a batch, a scalar."""
        with torch.autocast(embeddings_BD.device.type, enabled=False):
            return self.loss(*gather_with_gradients(embeddings_BD.float(), labels_B))


def _argument_names(loss_class: type) -> set[str]:
    """Those with plain values, of the class and of the classes that it hands further ones to."""
    names: set[str] = set()
    for base in inspect.getmro(loss_class):
        if base.__module__.startswith(f"{PACKAGE}.losses") and "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return names - {"self"}
