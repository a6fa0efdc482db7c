"""The losses of image classification, each first as one number an example, then as the Trainer wants it.

B batch, C classes. All are computed in float32, whatever the type of the logits.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hf_tasks.errors import RecipeError
from hf_tasks.tasks.image_classification.settings import Asymmetric, BinaryCrossEntropy, CrossEntropy, Loss

# Keeps temporary tensors small for many examples of many classes.
ROWS_AT_ONCE = 4096
# The slope of x^gamma is infinite at 0 for gamma < 1.
SMALLEST_FOCUSED = 1e-8


class HasLogits(Protocol):
    """What a model returns: `logits` of shape (B, C)."""

    logits: Tensor


@dataclass(frozen=True)
class ClassificationLoss:
    """A mean over examples, exact under gradient accumulation and over processes.

    Called as the Trainer calls its `compute_loss_func`. The Trainer counts the label elements of one
    optimizer step over every accumulated batch and process: one an example, or C with several classes per
    picture. The sum over this batch is divided by the examples of the whole step, so that the parts add up to
    their mean, however they were cut. Without a count it is the mean over the batch.
    """

    per_example: Callable[[Tensor, Tensor], Tensor]
    """(logits, labels) -> (B,) float32."""

    def __call__(
        self, outputs: HasLogits, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """The loss of one batch, a scalar.

        Args:
            outputs: what the model returned.
            labels: (B,) classes, or (B, C) of 0 and 1.
            num_items_in_batch: label elements of the whole optimizer step.
        """
        losses_B = self.per_example(outputs.logits, labels)
        if num_items_in_batch is None:
            return losses_B.mean()
        items_per_example = labels.numel() // labels.shape[0]
        return losses_B.sum() * items_per_example / num_items_in_batch


def cross_entropy(
    logits_BC: Tensor,
    labels_B: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights_C: Tensor | None = None,
) -> Tensor:
    """Cross entropy of each example, times the weight of its true class.

    The mean over N examples is (1/N) sum w_y CE, where `torch.nn.functional.cross_entropy` divides by the sum
    of the weights in the batch instead, so that a picture's influence there depends on its neighbours in the
    batch. With smoothing, the whole smoothed loss of an example has its true class's weight.

    Args:
        logits_BC: any floating type.
        labels_B: true class, int64, in [0, C).
        label_smoothing: share of the target that is spread evenly over all classes, in [0, 1).
        class_weights_C: positive factors.

    Returns:
        (B,) float32.
    """
    losses_B = functional.cross_entropy(
        logits_BC.float(), labels_B, reduction="none", label_smoothing=label_smoothing
    )
    if class_weights_C is None:
        return losses_B
    return losses_B * class_weights_C.to(losses_B)[labels_B]


def binary_cross_entropy(
    logits_BC: Tensor, labels_BC: Tensor, *, positive_weights_C: Tensor | None = None
) -> Tensor:
    """Binary cross entropy of each example, the mean over its classes.

    Args:
        logits_BC: any floating type.
        labels_BC: 1 where the class is present, else 0.
        positive_weights_C: factors of the classes that are present.

    Returns:
        (B,) float32.
    """
    logits_BC = logits_BC.float()
    weights_C = None if positive_weights_C is None else positive_weights_C.to(logits_BC)
    return functional.binary_cross_entropy_with_logits(
        logits_BC, labels_BC.float(), pos_weight=weights_C, reduction="none"
    ).mean(dim=1)


def asymmetric(
    logits_BC: Tensor, labels_BC: Tensor, *, gamma_negative: float, gamma_positive: float, clip: float
) -> Tensor:
    """Asymmetric loss of each example, the mean over its classes.

    With p = sigmoid(logit) and q = max(p - clip, 0), a present class costs -(1 - p)^gamma_positive log p and
    an absent one -q^gamma_negative log(1 - q). timm's `AsymmetricLossMultiLabel` with `reduction="mean"` is
    the mean of this over the batch; its default, `"batchmean"`, sums over classes and is C times as large.
    timm also cuts each logarithm at log 1e-8, where the worst errors lose their gradient (a present class
    with a logit below -18.4; an absent one above 18.4 if clip is 0); here they keep it.

    Args:
        logits_BC: any floating type.
        labels_BC: 1 where the class is present, else 0.
        gamma_negative: how much less well-recognised absent classes count, >= 0.
        gamma_positive: the same for present classes, >= 0.
        clip: probability under which an absent class costs nothing, in [0, 1).

    Returns:
        (B,) float32.

    Source: Asymmetric Loss For Multi-Label Classification, arXiv:2009.14119, eq. 4-7.
    """
    logits_BC = logits_BC.float()
    log_present_BC = functional.logsigmoid(logits_BC)
    log_absent_BC = functional.logsigmoid(-logits_BC)
    # log(1 - q) = min(log(1 - p + clip), 0), without leaving the logarithm.
    log_shifted_BC = torch.logaddexp(log_absent_BC, logits_BC.new_tensor(clip).log()).clamp(max=0)
    focus_present_BC = torch.exp(gamma_positive * log_absent_BC)
    focus_absent_BC = (-torch.expm1(log_shifted_BC)).clamp(min=SMALLEST_FOCUSED) ** gamma_negative
    costs_BC = torch.where(
        labels_BC.bool(), focus_present_BC * log_present_BC, focus_absent_BC * log_shifted_BC
    )
    return -costs_BC.mean(dim=1)


@torch.no_grad()
def per_example_losses(
    loss: ClassificationLoss, logits_BC: Tensor | NDArray[Any], labels: Tensor | NDArray[Any]
) -> Tensor:
    """The loss of each example, (B,) float32; its mean is what training reports for the same examples.

    Rows do not know of each other, so the numbers do not depend on how the examples were batched.
    """
    parts = zip(
        torch.as_tensor(logits_BC).split(ROWS_AT_ONCE),
        torch.as_tensor(labels).split(ROWS_AT_ONCE),
        strict=True,
    )
    return torch.cat([loss.per_example(logits, truth) for logits, truth in parts])


def build_loss(
    settings: Loss | None, *, class_names: Sequence[str], train_labels: NDArray[Any], is_multilabel: bool
) -> ClassificationLoss:
    """The loss that a recipe asks for, with weights from the training labels where it says `balanced`.

    Balanced class weights are N / (K n_c) for the K classes that occur: their mean over the training rows is
    1. Balanced positive weights are absent rows / present rows. A class that has no such number, and one that
    a recipe gives no weight, has weight 1.

    Args:
        settings: the `loss` section; None for plain cross-entropy or binary cross-entropy.
        class_names: the C names, in the order of the logits.
        train_labels: (N,) classes, or (N, C) of 0 and 1.
        is_multilabel: whether a picture can have several classes.

    Raises:
        RecipeError: the loss does not fit the labels, or a weight names a class that does not exist.
    """
    if settings is None:
        settings = BinaryCrossEntropy() if is_multilabel else CrossEntropy()
    if isinstance(settings, CrossEntropy) == is_multilabel:
        labels = "several classes" if is_multilabel else "one class"
        wanted = "binary-cross-entropy or asymmetric" if is_multilabel else "cross-entropy"
        raise RecipeError(
            [f"loss.name: '{settings.name}' does not fit {labels} per picture; wanted {wanted}"]
        )
    match settings:
        case CrossEntropy(class_weights=weights, label_smoothing=smoothing):
            if weights == "balanced":
                weights = _balanced_class_weights(train_labels, class_names)
            weights_C = _in_class_order(weights, class_names, key="loss.class_weights")
            return ClassificationLoss(
                partial(cross_entropy, label_smoothing=smoothing, class_weights_C=weights_C)
            )
        case BinaryCrossEntropy(positive_weights=weights):
            if weights == "balanced":
                weights = _balanced_positive_weights(train_labels, class_names)
            weights_C = _in_class_order(weights, class_names, key="loss.positive_weights")
            return ClassificationLoss(partial(binary_cross_entropy, positive_weights_C=weights_C))
        case Asymmetric():
            return ClassificationLoss(partial(asymmetric, **settings.model_dump(exclude={"name"})))


def _balanced_class_weights(labels_N: NDArray[Any], class_names: Sequence[str]) -> dict[str, float]:
    counts_C = np.bincount(labels_N.astype(np.int64), minlength=len(class_names))
    share = len(labels_N) / np.count_nonzero(counts_C)
    return {name: share / count for name, count in zip(class_names, counts_C, strict=True) if count}


def _balanced_positive_weights(labels_NC: NDArray[Any], class_names: Sequence[str]) -> dict[str, float]:
    present_C = np.count_nonzero(labels_NC, axis=0)
    absent_C = len(labels_NC) - present_C
    rows = zip(class_names, absent_C, present_C, strict=True)
    return {name: absent / present for name, absent, present in rows if absent and present}


def _in_class_order(
    weights: Mapping[str, float] | None, class_names: Sequence[str], *, key: str
) -> Tensor | None:
    if weights is None:
        return None
    unknown = [name for name in weights if name not in class_names]
    if unknown:
        raise RecipeError([f"{key}: {_no_such_class(name, class_names)}" for name in unknown])
    return torch.tensor([weights.get(name, 1.0) for name in class_names], dtype=torch.float32)


def _no_such_class(name: str, class_names: Sequence[str]) -> str:
    shown = ", ".join(class_names[:10]) + (", ..." if len(class_names) > 10 else "")
    matches = difflib.get_close_matches(name, class_names, n=1)
    hint = f"; did you mean '{matches[0]}'?" if matches else ""
    return f"no class '{name}' in the training data (it has {shown}){hint}"
