"""How well a language model predicts text, from sums over blocks; no logits are kept.

Axes: N blocks, G documents or blocks that are drawn.
"""

import math
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_tasks.metrics.bootstrap import Figures, Interval, bootstrap

# Beyond this a perplexity says nothing, and JSON has no infinity.
HIGHEST_LOSS = 100.0


def compute_language(
    nats_N: NDArray[Any], tokens_N: NDArray[Any], *, text_bytes: int | None
) -> dict[str, float]:
    """Figures of predicted tokens.

    Args:
        nats_N: sum of the negative log-likelihoods of each block's predicted tokens, natural logarithm.
        tokens_N: predicted tokens of each block.
        text_bytes: UTF-8 bytes of the text that all the tokens stand for; None where only some of the
            text's tokens were predicted, as by masking.

    Returns:
        `loss` (nats a token), `perplexity`, and `bits_per_byte`, which compares over tokenizers, unless
        text_bytes is None.

    Raises:
        ValueError: no predicted token, or values that are not finite.
    """
    total, tokens = float(np.sum(nats_N, dtype=np.float64)), int(np.sum(tokens_N))
    if tokens == 0:
        raise ValueError("tokens: none was predicted; wanted at least one: have more text validated")
    if not math.isfinite(total):
        raise ValueError("the losses are not finite: the model has diverged, try a lower learning rate")
    loss = total / tokens
    figures = {"loss": loss, "perplexity": math.exp(min(loss, HIGHEST_LOSS))}
    if text_bytes is not None:
        figures["bits_per_byte"] = total / math.log(2) / text_bytes
    return figures


def language_intervals(
    nats_N: NDArray[Any], tokens_N: NDArray[Any], *, bytes_N: NDArray[Any] | None, documents_N: NDArray[Any]
) -> dict[str, Interval]:
    """An interval for each figure of compute_language, over documents.

    What stands in one document is alike, so the blocks of a long one are drawn together; of short ones, which
    share blocks, a block is drawn. Without two to draw from there are no intervals.

    Args:
        nats_N: as in compute_language.
        tokens_N: likewise.
        bytes_N: UTF-8 bytes of each block's text; None where only some of its tokens were predicted.
        documents_N: the document that each block begins in.
    """
    group_N = np.unique(documents_N, return_inverse=True)[1]
    nats_G, tokens_G = np.bincount(group_N, nats_N), np.bincount(group_N, tokens_N)
    bytes_G = None if bytes_N is None else np.bincount(group_N, bytes_N)

    def figures(count_G: NDArray[np.float64]) -> Figures:
        nats, tokens = float(count_G @ nats_G), float(count_G @ tokens_G)
        if not tokens:
            return dict.fromkeys(names, np.nan)
        found = {"loss": nats / tokens, "perplexity": math.exp(min(nats / tokens, HIGHEST_LOSS))}
        if bytes_G is not None:
            found["bits_per_byte"] = nats / math.log(2) / float(count_G @ bytes_G)
        return found

    names = ("loss", "perplexity", *(() if bytes_N is None else ("bits_per_byte",)))
    return bootstrap(figures, len(nats_G)) if len(nats_G) > 1 else {}


def gzip_bits_per_byte(documents: Iterable[str]) -> float:
    """What `gzip -9` makes of the documents, a line each: compressed bits per byte of text."""
    packer = zlib.compressobj(9, wbits=31)
    text_bytes = packed_bytes = 0
    for document in documents:
        line = f"{document}\n".encode()
        text_bytes += len(line)
        packed_bytes += len(packer.compress(line))
    packed_bytes += len(packer.flush())
    return 8 * packed_bytes / text_bytes
