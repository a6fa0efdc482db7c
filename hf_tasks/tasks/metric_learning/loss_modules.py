"""The losses as modules, with what they learn or remember: class centres, or embeddings of earlier batches.

B pictures of a batch, C classes, D width, R references that a batch is compared with.
All are computed in float32 from unit vectors, whatever the type of the embeddings.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from hf_tasks.tasks.metric_learning.gather import gather_with_gradients
from hf_tasks.tasks.metric_learning.losses import (
    arcface_logits,
    cosface_logits,
    multi_similarity,
    proxy_anchor,
    softmax_logits,
    sphereface_logits,
    supervised_contrastive,
    triplet_batch_hard,
    unit,
)
from hf_tasks.tasks.metric_learning.pml import PmlLoss
from hf_tasks.tasks.metric_learning.settings import (
    ArcFace,
    CosFace,
    Loss,
    MultiSimilarity,
    NormalisedSoftmax,
    Pml,
    ProxyAnchor,
    SphereFace,
    SubCentreArcFace,
    SupervisedContrastive,
    Triplet,
)

LOGITS: Mapping[type, Callable[..., Tensor]] = {
    ArcFace: arcface_logits,
    SubCentreArcFace: arcface_logits,
    CosFace: cosface_logits,
    SphereFace: sphereface_logits,
    NormalisedSoftmax: softmax_logits,
}
PAIR_FORMULAS: Mapping[type, Callable[..., Tensor]] = {
    Triplet: triplet_batch_hard,
    MultiSimilarity: multi_similarity,
    SupervisedContrastive: supervised_contrastive,
}


class CentreLoss(nn.Module):
    """A loss of the cosines to learned class centres."""

    def __init__(
        self,
        formula: Callable[[Tensor, Tensor], Tensor],
        *,
        classes: int,
        width: int,
        centres_per_class: int = 1,
        sees_all_processes: bool = False,
    ) -> None:
        """Draw the centres.

        Args:
            formula: (cosines, labels) -> a scalar.
            classes: number of classes.
            width: of the embeddings.
            centres_per_class: the nearest of these counts.
            sees_all_processes: the formula is no mean over pictures, so it needs the whole batch.
        """
        super().__init__()
        self.formula = formula
        self.centres_per_class = centres_per_class
        self.sees_all_processes = sees_all_processes
        self.centres = nn.Parameter(torch.randn(classes * centres_per_class, width) / math.sqrt(width))

    def forward(self, embeddings_BD: Tensor, labels_B: Tensor) -> Tensor:
        """The loss of a batch, a scalar, float32."""
        with torch.autocast(embeddings_BD.device.type, enabled=False):
            units_BD = unit(embeddings_BD)
            if self.sees_all_processes:
                units_BD, labels_B = gather_with_gradients(units_BD, labels_B)
            cosines_BC = units_BD @ unit(self.centres).T
            if self.centres_per_class > 1:
                cosines_BC = cosines_BC.unflatten(1, (-1, self.centres_per_class)).amax(dim=2)
            return self.formula(cosines_BC, labels_B)


class PairLoss(nn.Module):
    """A loss of pairs within the batch of all processes, and with a memory of earlier batches."""

    def __init__(
        self, formula: Callable[[Tensor, Tensor, Tensor], Tensor], *, memory: int = 0, width: int
    ) -> None:
        """Start with an empty memory.

        Args:
            formula: (cosines, is positive, is negative) -> a scalar; rows are pictures, columns references.
            memory: embeddings of earlier batches to compare with as well, the newest ones.
            width: of the embeddings.

        Source of the memory: Cross-Batch Memory for Embedding Learning, arXiv:1912.06798.
        """
        super().__init__()
        self.formula = formula
        self.register_buffer("memory", torch.zeros(memory, width))
        self.register_buffer("memory_labels", torch.full((memory,), -1))
        self.memory: Tensor
        self.memory_labels: Tensor

    def forward(self, embeddings_BD: Tensor, labels_B: Tensor) -> Tensor:
        """The loss of a batch, a scalar, float32; the batch is remembered afterwards."""
        with torch.autocast(embeddings_BD.device.type, enabled=False):
            units_BD, labels_B = gather_with_gradients(unit(embeddings_BD), labels_B)
            references_RD = torch.cat([units_BD, self.memory])
            labels_R = torch.cat([labels_B, self.memory_labels])
            is_other_BR = labels_R >= 0
            is_other_BR = is_other_BR.repeat(len(labels_B), 1)
            is_other_BR.fill_diagonal_(False)
            is_same_BR = labels_B[:, None] == labels_R
            loss = self.formula(
                units_BD @ references_RD.T, is_same_BR & is_other_BR, ~is_same_BR & is_other_BR
            )
        if self.training and len(self.memory):
            self._remember(units_BD.detach(), labels_B)
        return loss

    def _remember(self, units_BD: Tensor, labels_B: Tensor) -> None:
        kept = len(self.memory)
        self.memory = torch.cat([units_BD, self.memory])[:kept]
        self.memory_labels = torch.cat([labels_B, self.memory_labels])[:kept]


def build_loss(settings: Loss, *, classes: int, width: int) -> nn.Module:
    """The loss that a recipe asks for, called as loss(embeddings, labels).

    Args:
        settings: the `loss` section.
        classes: number of training classes.
        width: of the embeddings.

    Raises:
        RecipeError: arguments that a loss of pytorch-metric-learning does not take, or it is not installed.
    """
    values = settings.model_dump(exclude={"name", "centres", "memory"})
    match settings:
        case Pml(name=name):
            return PmlLoss(name.removeprefix("pml/"), values, classes=classes, width=width)
        case ProxyAnchor():
            anchors = partial(proxy_anchor, **values)
            return CentreLoss(anchors, classes=classes, width=width, sees_all_processes=True)
        case Triplet(memory=memory) | MultiSimilarity(memory=memory) | SupervisedContrastive(memory=memory):
            return PairLoss(partial(PAIR_FORMULAS[type(settings)], **values), memory=memory, width=width)
        case _:
            entropy = _entropy_of(partial(LOGITS[type(settings)], **values))
            centres = settings.centres if isinstance(settings, SubCentreArcFace) else 1
            return CentreLoss(entropy, classes=classes, width=width, centres_per_class=centres)


def _entropy_of(logits: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def entropy(cosines_BC: Tensor, labels_B: Tensor) -> Tensor:
        return functional.cross_entropy(logits(cosines_BC, labels_B), labels_B)

    return entropy
