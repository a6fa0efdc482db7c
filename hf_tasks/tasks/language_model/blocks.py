"""Documents as blocks of tokens without padding, from a file of token numbers that is never all in memory.

Axes: S tokens of a block.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hf_tasks.data.cache import cache_path, written_whole
from hf_tasks.data.order import ExampleKey
from hf_tasks.data.portions import in_portions, pieces_of
from hf_tasks.tasks.language_model.data import documents_of
from hf_tasks.tasks.language_model.model import LanguageModel

TOKEN = np.dtype("<u4")
# Marks labels that cost nothing; the number that transformers counts with.
NO_LABEL = -100
# Of the tokens to predict: these parts are masked and replaced by another token; the rest stay (BERT).
MASKED_PART, REPLACED_PART = 0.8, 0.1
VALIDATION_EPOCH = -1


@dataclass(frozen=True)
class Packed:
    """Documents as one row of token numbers: a boundary token, a document, a boundary token, and so on."""

    tokens: np.ndarray
    """Memory-mapped; the first and the last are boundaries."""
    text_bytes: int
    """UTF-8 bytes of the documents, and one more a document for the line end that a boundary stands for."""


def pack(documents: datasets.Dataset, loaded: LanguageModel) -> Packed:
    """Tokenize documents into a file below HF_DATASETS_CACHE, found by its contents the next time."""
    digest = hashlib.sha256()
    text_bytes = 0
    for document in documents_of(documents):
        encoded = f"{document}\n".encode()
        digest.update(encoded)
        text_bytes += len(encoded)
    tokenizer = hashlib.sha256(loaded.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    path = cache_path(["tokens", digest.hexdigest(), tokenizer, str(loaded.boundary)], suffix=".tokens")
    if not path.exists():
        with written_whole(path) as written:
            _write_tokens(written, documents, loaded)
    return Packed(np.memmap(path, TOKEN, mode="r"), text_bytes)


def _write_tokens(path: Path, documents: datasets.Dataset, loaded: LanguageModel) -> None:
    boundary = np.array([loaded.boundary], TOKEN)
    with path.open("wb") as file:
        file.write(boundary.tobytes())
        for batch in in_portions(_pieces(documents), lambda piece: len(piece[0])):
            texts, ends = zip(*batch, strict=True)
            encoded = loaded.tokenizer(list(texts), add_special_tokens=False, verbose=False)
            for token_ids, is_end in zip(encoded["input_ids"], ends, strict=True):
                file.write(np.array(token_ids, TOKEN).tobytes() + boundary.tobytes() * is_end)


def _pieces(documents: datasets.Dataset) -> Iterator[tuple[str, bool]]:
    """Each document, a very long one in pieces, and whether it ends there."""
    for document in documents_of(documents):
        *heads, last = pieces_of(document)
        yield from ((head, False) for head in heads)
        yield last, True


class CausalBlocks(Dataset):
    """Blocks whose labels are the tokens that follow: each token but the very first is a label once."""

    def __init__(self, packed: Packed, loaded: LanguageModel, *, keep_rest: bool, positions: bool) -> None:
        """Keep the tokens.

        Args:
            packed: the documents.
            loaded: the model.
            keep_rest: whether tokens that fill no whole block become a last, padded one; else they are left
                out, unless there is no other block.
            positions: number the tokens from each document's start.
        """
        self.tokens, self.block_size, self.boundary = packed.tokens, loaded.block_size, loaded.boundary
        self.text_bytes = packed.text_bytes
        self.positions = positions
        self.length = _block_count(len(self.tokens) - 1, self.block_size, keep_rest=keep_rest)

    def __len__(self) -> int:
        """Number of blocks."""
        return self.length

    def original(self, block: int) -> np.ndarray:
        """The tokens that a block predicts."""
        start = block * self.block_size + 1
        return self.tokens[start : start + self.block_size]

    def __getitem__(self, key: ExampleKey | int) -> dict[str, Tensor]:
        """`input_ids` and `labels`, and `position_ids` where boundaries are kept; int64 (S,)."""
        start = (key.row if isinstance(key, ExampleKey) else key) * self.block_size
        window = self.tokens[start : start + self.block_size + 1].astype(np.int64)
        inputs, labels = window[:-1], window[1:]
        missing = self.block_size - len(inputs)
        item = {
            "input_ids": np.pad(inputs, (0, missing), constant_values=self.boundary),
            "labels": np.pad(labels, (0, missing), constant_values=NO_LABEL),
        }
        if self.positions:
            item["position_ids"] = positions_of(item["input_ids"], self.boundary)
        return {name: torch.from_numpy(values) for name, values in item.items()}


class MaskedBlocks(Dataset):
    """Blocks with tokens masked, replaced or left, which are the labels; drawn from seed, epoch and block."""

    def __init__(
        self, packed: Packed, loaded: LanguageModel, *, keep_rest: bool, probability: float, seed: int
    ) -> None:
        """Keep the tokens.

        Args:
            packed: the documents.
            loaded: the model; the mask is its own tokenizer's.
            keep_rest: whether tokens that fill no whole block become a last, padded one; else they are left
                out, unless there is no other block.
            probability: share of tokens to predict; boundaries are never among them.
            seed: the run's seed.
        """
        tokenizer = loaded.tokenizer
        self.tokens, self.block_size, self.boundary = packed.tokens, loaded.block_size, loaded.boundary
        self.probability, self.seed = probability, seed
        self.mask, self.padding, self.vocabulary = (
            tokenizer.mask_token_id,
            tokenizer.pad_token_id,
            len(tokenizer),
        )
        self.length = _block_count(len(self.tokens), self.block_size, keep_rest=keep_rest)

    def __len__(self) -> int:
        """Number of blocks."""
        return self.length

    def original(self, block: int) -> np.ndarray:
        """The tokens of a block, none of them masked."""
        start = block * self.block_size
        return self.tokens[start : start + self.block_size]

    def __getitem__(self, key: ExampleKey | int) -> dict[str, Tensor]:
        """`input_ids`, `labels` and `attention_mask`, int64 (S,)."""
        epoch, block = key if isinstance(key, ExampleKey) else (VALIDATION_EPOCH, key)
        original = self.original(block).astype(np.int64)
        # SeedSequence takes no negative number.
        generator = np.random.default_rng((self.seed, epoch - VALIDATION_EPOCH, block))
        draws, kinds = generator.random(len(original)), generator.random(len(original))
        others = generator.integers(self.vocabulary, size=len(original))
        is_label = (draws < self.probability) & (original != self.boundary)
        is_masked = is_label & (kinds < MASKED_PART)
        is_replaced = is_label & (kinds >= MASKED_PART) & (kinds < MASKED_PART + REPLACED_PART)
        inputs = np.where(is_masked, self.mask, np.where(is_replaced, others, original))
        missing = (0, self.block_size - len(original))
        item = {
            "input_ids": np.pad(inputs, missing, constant_values=self.padding),
            "labels": np.pad(np.where(is_label, original, NO_LABEL), missing, constant_values=NO_LABEL),
            "attention_mask": np.pad(np.ones_like(original), missing),
        }
        return {name: torch.from_numpy(values) for name, values in item.items()}


def document_numbers(blocks: CausalBlocks | MaskedBlocks) -> np.ndarray:
    """The document, from 0, that each block's first token is of, int64 (N,); boundaries end documents."""
    boundaries = np.flatnonzero(blocks.tokens[1:] == blocks.boundary) + 1
    return np.searchsorted(boundaries, np.arange(len(blocks)) * blocks.block_size, side="right")


def positions_of(token_ids_S: np.ndarray, boundary: int) -> np.ndarray:
    """The distance of each token from its document's start, or from the block's; int64 (S,)."""
    places_S = np.arange(len(token_ids_S))
    starts_S = np.maximum.accumulate(np.where(token_ids_S == boundary, places_S, 0))
    return places_S - starts_S


def collate(items: list[dict[str, Tensor]]) -> dict[str, Any]:
    """A batch of blocks."""
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def _block_count(tokens: int, block_size: int, *, keep_rest: bool) -> int:
    """Blocks to cut; text that is shorter than one block becomes one in any case."""
    return -(-tokens // block_size) if keep_rest else max(1, tokens // block_size)
