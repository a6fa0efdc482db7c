"""The texts of pairs, each distinct one once, so that measuring embeds none of them twice.

Axes: N rows, K texts a row, T distinct texts, D width of the embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import datasets
import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from hf_tasks.tasks.siamese.data import labels_of, texts_of
from hf_tasks.tasks.siamese.model import PairModel

# 50 MB of a side for embeddings of 384 numbers.
PAIRS_AT_ONCE = 2**14


@dataclass(frozen=True)
class PairsOfTexts(Dataset):
    """Rows as numbers of distinct texts; an item is a text, short ones first, so that batches pad little."""

    texts: Sequence[str]
    """T."""
    numbers_NK: np.ndarray
    """The number of each text of each row, int64 in [0, T)."""
    labels_N: np.ndarray | None

    def __len__(self) -> int:
        """Number of distinct texts."""
        return len(self.texts)

    def __getitem__(self, number: int) -> str:
        """A text."""
        return self.texts[number]


def pairs_of_texts(rows: datasets.Dataset) -> PairsOfTexts:
    """The rows of PairSplits with their distinct texts."""
    texts_NK = texts_of(rows)
    distinct = sorted({text for texts in texts_NK for text in texts}, key=lambda text: (len(text), text))
    numbers = {text: number for number, text in enumerate(distinct)}
    numbers_NK = np.array([[numbers[text] for text in texts] for texts in texts_NK], np.int64)
    labels_N = labels_of(rows) if "label" in rows.column_names else None
    return PairsOfTexts(distinct, numbers_NK, labels_N)


def scores_of_pairs(
    model: PairModel, embeddings_TD: np.ndarray, first_N: np.ndarray, second_N: np.ndarray
) -> np.ndarray:
    """The score of each pair, float64 (N,): the cosine in [-1, 1], or the head's probability in [0, 1].

    Args:
        model: whose scores.
        embeddings_TD: of the distinct texts, as the encoder gave them.
        first_N: number of each pair's first text.
        second_N: number of its second text.
    """
    rows_TD = unit_rows(embeddings_TD) if model.head is None else embeddings_TD
    score = _cosines if model.head is None else partial(_probabilities, model.head.eval())
    parts = [
        score(
            rows_TD[first_N[start : start + PAIRS_AT_ONCE]], rows_TD[second_N[start : start + PAIRS_AT_ONCE]]
        )
        for start in range(0, len(first_N), PAIRS_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _cosines(first_ND: np.ndarray, second_ND: np.ndarray) -> np.ndarray:
    cosines_N = np.einsum("nd,nd->n", first_ND.astype(np.float64), second_ND.astype(np.float64))
    return cosines_N.clip(-1, 1)  # rows of float32 are not quite of length 1


@torch.inference_mode()
def _probabilities(head: nn.Module, first_ND: np.ndarray, second_ND: np.ndarray) -> np.ndarray:
    device = next(head.parameters()).device
    first, second = (torch.from_numpy(rows_ND).float().to(device) for rows_ND in (first_ND, second_ND))
    return head(first, second).double().sigmoid().cpu().numpy()


def unit_rows(embeddings_TD: np.ndarray) -> np.ndarray:
    """The rows at length 1, float32; a row of zeros stays one."""
    lengths_T1 = np.linalg.norm(embeddings_TD, axis=1, keepdims=True)
    return (embeddings_TD / np.maximum(lengths_T1, 1e-12)).astype(np.float32)
