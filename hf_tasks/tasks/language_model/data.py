"""The documents of a run: loaded, counted, split."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import datasets
import numpy as np

from hf_tasks.data.documents import load_documents
from hf_tasks.data.portions import rows_at_once
from hf_tasks.data.spilled import Spilled, parts_of, select_rows, sorted_numbers
from hf_tasks.errors import DataError
from hf_tasks.metrics.language import gzip_bits_per_byte
from hf_tasks.tasks.language_model.settings import Settings

HASH_BYTES = 8


@dataclass(frozen=True)
class DocumentSplits:
    """Documents to train on and to validate with, in the column `text`; train is None for measuring alone."""

    train: datasets.Dataset | None
    validation: datasets.Dataset
    facts: dict[str, Any] = field(default_factory=dict)

    def head(self, rows: int) -> "DocumentSplits":
        """The first documents of both splits, for a trial; the facts stay those of all."""
        train, validation = (
            None if split is None else split.select(range(min(rows, len(split))))
            for split in (self.train, self.validation)
        )
        return replace(self, train=train, validation=validation)


@dataclass(frozen=True)
class Side:
    """Which documents are on one side of the split; both arrays are memory-mapped."""

    rows_N: np.ndarray
    """Their numbers in the source, uint64."""
    hashes_N: np.ndarray
    """Equal for equal texts and evenly spread, uint64."""

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.rows_N)


def prepare_splits(settings: Settings) -> DocumentSplits:
    """Both splits of a recipe.

    A fraction is split off by a hash of seed and text, so equal documents are on one side and the order of
    the documents plays no part. Nothing that is kept of a document is kept in memory.

    Raises:
        DataError: text is missing, empty or broken.
    """
    data, column = settings.data, settings.data.columns.text
    skipped = list[dict[str, Any]]() if settings.on_bad_example == "skip" else None
    whole = load_documents(data.train, column=column, key="data.train", skipped=skipped)
    if isinstance(data.validation, float):
        train_side, held_out = _sides(whole, data.split_seed, data.validation)
        if not len(train_side) or not len(held_out):
            raise DataError(
                f"data.validation: no {data.validation:g} of {len(whole)} documents can be split off; "
                "wanted more documents (is `documents: lines` right?), or a source for validation"
            )
        train, validation = (select_rows(whole, side.rows_N) for side in (train_side, held_out))
    else:
        train_side, _ = _sides(whole, data.split_seed, 0.0)
        validation = load_documents(data.validation, column=column, key="data.validation", skipped=skipped)
        held_out, _ = _sides(validation, data.split_seed, 0.0)
        train = whole
    facts = _facts(train_side, held_out)
    facts["validation"]["gzip_bits_per_byte"] = gzip_bits_per_byte(documents_of(validation))
    if data.drop_duplicates:
        train = select_rows(whole, _first_rows(train_side))
    facts |= {"duplicates_dropped": data.drop_duplicates, "skipped": skipped or []}
    return DocumentSplits(train, validation, facts)


def documents_of(rows: datasets.Dataset) -> Iterator[str]:
    """The documents, read a batch at a time."""
    for batch in rows.iter(rows_at_once(rows)):
        yield from batch["text"]


def _sides(documents: datasets.Dataset, seed: int, fraction: float) -> tuple[Side, Side]:
    """What is to train on, and about a fraction that is not."""
    rows, hashes = ([Spilled(np.uint64), Spilled(np.uint64)] for _ in range(2))
    start = 0
    for batch in documents.iter(rows_at_once(documents)):
        hashes_B = _hashes(batch["text"], seed)
        rows_B = np.arange(start, start + len(hashes_B))
        start += len(hashes_B)
        is_held_out_B = hashes_B < fraction * 2.0 ** (8 * HASH_BYTES)
        for side, is_chosen_B in enumerate((~is_held_out_B, is_held_out_B)):
            rows[side].add(rows_B[is_chosen_B])
            hashes[side].add(hashes_B[is_chosen_B])
    train, held_out = (Side(rows[side].mapped(), hashes[side].mapped()) for side in range(2))
    return train, held_out


def _hashes(documents: list[str], seed: int) -> np.ndarray:
    """A number a document, uint64."""
    digests = [
        hashlib.blake2b(f"{seed}\0{document}".encode(), digest_size=HASH_BYTES).digest()
        for document in documents
    ]
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


def _facts(train: Side, held_out: Side) -> dict[str, Any]:
    fingerprint = hashlib.sha256(train.hashes_N.data)
    fingerprint.update(held_out.hashes_N.data)
    ascending_N, held_out_N = sorted_numbers(train.hashes_N), sorted_numbers(held_out.hashes_N)
    shared = sum(
        int((ascending_N[np.searchsorted(ascending_N, part).clip(max=len(ascending_N) - 1)] == part).sum())
        for part in parts_of(held_out_N)
    )
    return {
        "train": {"rows": len(train), "duplicates": _repeats(ascending_N)},
        "validation": {"rows": len(held_out), "duplicates": _repeats(held_out_N)},
        "validation_documents_in_train": shared,
        "fingerprint": fingerprint.hexdigest(),
    }


def _repeats(ascending_N: np.ndarray) -> int:
    """How many of the numbers are equal to the one before."""
    return int((ascending_N[1:] == ascending_N[:-1]).sum())


def _first_rows(side: Side) -> np.ndarray:
    """The rows without those whose text stands in an earlier one, uint64, memory-mapped."""
    ascending_N = sorted_numbers(side.hashes_N)
    repeated = np.unique(ascending_N[1:][ascending_N[1:] == ascending_N[:-1]])
    seen, first_rows = set[int](), Spilled(np.uint64)
    for rows_B, hashes_B in zip(parts_of(side.rows_N), parts_of(side.hashes_N), strict=True):
        is_first_B = ~np.isin(hashes_B, repeated)
        for place in np.flatnonzero(~is_first_B).tolist():
            is_first_B[place] = int(hashes_B[place]) not in seen
            seen.add(int(hashes_B[place]))
        first_rows.add(rows_B[is_first_B])
    return first_rows.mapped()
