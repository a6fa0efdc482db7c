"""The formulas of metric learning, each a function of cosines between unit vectors.

B pictures of a batch, C classes, D width, R references that a batch is compared with.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

# acos has an infinite slope at +-1; one float32 step inside keeps the gradient finite.
LARGEST_COSINE = 1 - 2**-23
# The slope of a distance is infinite at 0.
SMALLEST_SQUARED_DISTANCE = 1e-12


def unit(vectors: Tensor) -> Tensor:
    """The rows scaled to length 1, float32."""
    return functional.normalize(vectors.float(), dim=-1)


def arcface_logits(cosines_BC: Tensor, labels_B: Tensor, *, margin: float, scale: float) -> Tensor:
    """Widen the angle to the true class by a margin, then scale to logits.

    Where the widened angle would pass pi, the cosine falls by margin * sin(margin) instead, so that the
    logit keeps falling with the angle, for margins up to 2.3.

    Args:
        cosines_BC: cosine to each class centre, in [-1, 1].
        labels_B: true class, int64, in [0, C).
        margin: added angle, radians, in [0, pi); 0 gives plain scaled cosines.
        scale: inverse temperature, > 0.

    Returns:
        Logits of shape (B, C), for cross entropy.

    Source: ArcFace, arXiv:1801.07698, eq. 3.
    """
    true_B = _true_cosines(cosines_BC, labels_B)
    widened_B = (_angles(true_B) + margin).cos()
    lowered_B = true_B - margin * math.sin(margin)
    fits_B = true_B >= math.cos(math.pi - margin)
    return scale * _with_true(cosines_BC, labels_B, torch.where(fits_B, widened_B, lowered_B))


def cosface_logits(cosines_BC: Tensor, labels_B: Tensor, *, margin: float, scale: float) -> Tensor:
    """Lower the cosine to the true class by a margin, then scale; arguments as of arcface_logits.

    Source: CosFace, arXiv:1801.09414, eq. 4.
    """
    return scale * _with_true(cosines_BC, labels_B, _true_cosines(cosines_BC, labels_B) - margin)


def sphereface_logits(cosines_BC: Tensor, labels_B: Tensor, *, margin: float, scale: float) -> Tensor:
    """Multiply the angle to the true class, then scale.

    With k = floor(margin * angle / pi) the cosine becomes (-1)^k cos(margin * angle) - 2k, which falls with
    the angle throughout. Embeddings are unit vectors and `scale` stands for their length in the paper.

    Args:
        cosines_BC: cosine to each class centre, in [-1, 1].
        labels_B: true class, int64, in [0, C).
        margin: factor of the angle, >= 1; whole numbers in the paper, any here.
        scale: inverse temperature, > 0.

    Source: SphereFace, arXiv:1704.08063, eq. 7 and 8.
    """
    angles_B = _angles(_true_cosines(cosines_BC, labels_B))
    turns_B = (margin * angles_B.detach() / math.pi).floor()
    sign_B = 1 - 2 * (turns_B % 2)
    return scale * _with_true(cosines_BC, labels_B, sign_B * (margin * angles_B).cos() - 2 * turns_B)


def softmax_logits(cosines_BC: Tensor, labels_B: Tensor, *, temperature: float) -> Tensor:
    """Cosines over a temperature.

    Source: Classification is a Strong Baseline for Deep Metric Learning, arXiv:1811.12649, eq. 3.
    """
    return cosines_BC / temperature


def proxy_anchor(cosines_BC: Tensor, labels_B: Tensor, *, margin: float, alpha: float) -> Tensor:
    """Each class centre draws its own pictures and pushes the others away, the hardest most; a scalar.

    Source: Proxy Anchor Loss, arXiv:2003.13911, eq. 4.
    """
    classes = cosines_BC.shape[1]
    is_own_BC = functional.one_hot(labels_B, classes).bool()
    pull_C = _log_one_plus_sum(-alpha * (cosines_BC - margin), is_own_BC, dim=0)
    push_C = _log_one_plus_sum(alpha * (cosines_BC + margin), ~is_own_BC, dim=0)
    return pull_C.sum() / is_own_BC.any(dim=0).sum() + push_C.sum() / classes


def triplet_batch_hard(
    cosines_BR: Tensor, is_positive_BR: Tensor, is_negative_BR: Tensor, *, margin: float
) -> Tensor:
    """The furthest positive of each picture must be nearer than its nearest negative, by a margin; a scalar.

    The mean is over the pictures that have both; distances are Euclidean between unit vectors.

    Source: In Defense of the Triplet Loss, arXiv:1703.07737, eq. 5.
    """
    distances_BR = (2 - 2 * cosines_BR).clamp(min=SMALLEST_SQUARED_DISTANCE).sqrt()
    furthest_B = distances_BR.masked_fill(~is_positive_BR, -math.inf).amax(dim=1)
    nearest_B = distances_BR.masked_fill(~is_negative_BR, math.inf).amin(dim=1)
    has_both_B = is_positive_BR.any(dim=1) & is_negative_BR.any(dim=1)
    violations_B = (furthest_B[has_both_B] - nearest_B[has_both_B] + margin).relu()
    return violations_B.sum() / has_both_B.sum().clamp(min=1)


def multi_similarity(
    cosines_BR: Tensor,
    is_positive_BR: Tensor,
    is_negative_BR: Tensor,
    *,
    alpha: float,
    beta: float,
    base: float,
    epsilon: float,
) -> Tensor:
    """Hard pairs, mined within `epsilon`, weighted by their own and their relative similarity; a scalar.

    Source: Multi-Similarity Loss, arXiv:1904.06627, eq. 10, 11 and 16.
    """
    found = cosines_BR.detach()
    lowest_positive_B1 = found.masked_fill(~is_positive_BR, math.inf).amin(dim=1, keepdim=True)
    highest_negative_B1 = found.masked_fill(~is_negative_BR, -math.inf).amax(dim=1, keepdim=True)
    is_hard_positive_BR = is_positive_BR & (found - epsilon < highest_negative_B1)
    is_hard_negative_BR = is_negative_BR & (found + epsilon > lowest_positive_B1)
    pull_B = _log_one_plus_sum(-alpha * (cosines_BR - base), is_hard_positive_BR, dim=1) / alpha
    push_B = _log_one_plus_sum(beta * (cosines_BR - base), is_hard_negative_BR, dim=1) / beta
    return (pull_B + push_B).mean()


def supervised_contrastive(
    cosines_BR: Tensor, is_positive_BR: Tensor, is_negative_BR: Tensor, *, temperature: float
) -> Tensor:
    """Cross entropy of each positive among all pairs of a picture; a scalar.

    The mean is over the pictures that have a positive.

    Source: Supervised Contrastive Learning, arXiv:2004.11362, eq. 2.
    """
    logits_BR = (cosines_BR / temperature).masked_fill(~(is_positive_BR | is_negative_BR), -math.inf)
    has_positive_B = is_positive_BR.any(dim=1)
    log_shares_BR = functional.log_softmax(logits_BR[has_positive_B], dim=1)
    is_positive_BR = is_positive_BR[has_positive_B]
    costs_B = -log_shares_BR.masked_fill(~is_positive_BR, 0).sum(dim=1) / is_positive_BR.sum(dim=1)
    return costs_B.sum() / has_positive_B.sum().clamp(min=1)


def _true_cosines(cosines_BC: Tensor, labels_B: Tensor) -> Tensor:
    return cosines_BC.gather(1, labels_B[:, None])[:, 0]


def _angles(cosines_B: Tensor) -> Tensor:
    return cosines_B.clamp(-LARGEST_COSINE, LARGEST_COSINE).acos()


def _with_true(cosines_BC: Tensor, labels_B: Tensor, true_B: Tensor) -> Tensor:
    return cosines_BC.scatter(1, labels_B[:, None], true_B[:, None])


def _log_one_plus_sum(exponents: Tensor, is_kept: Tensor, *, dim: int) -> Tensor:
    """log(1 + sum of exp) over the kept entries, without overflow."""
    kept = exponents.masked_fill(~is_kept, -math.inf)
    one = torch.zeros_like(kept.narrow(dim, 0, 1))
    return torch.cat([kept, one], dim=dim).logsumexp(dim=dim)
