"""The documents of a run: loaded, counted, split."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import datasets
import numpy as np

from hf_tasks.data.documents import load_documents
from hf_tasks.errors import DataError
from hf_tasks.metrics.language import gzip_bits_per_byte
from hf_tasks.tasks.language_model.settings import Settings

BATCH_DOCUMENTS = 1000
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


def prepare_splits(settings: Settings) -> DocumentSplits:
    """Both splits of a recipe.

    A fraction is split off by a hash of seed and text, so equal documents are on one side and the order of
    the documents plays no part.

    Raises:
        DataError: text is missing, empty or broken.
    """
    data, column = settings.data, settings.data.columns.text
    skipped = list[dict[str, Any]]() if settings.on_bad_example == "skip" else None
    train = load_documents(data.train, column=column, key="data.train", skipped=skipped)
    hashes_N = _hashes(train, data.split_seed)
    if isinstance(data.validation, float):
        is_validation_N = hashes_N < data.validation * 2.0 ** (8 * HASH_BYTES)
        if is_validation_N.all() or not is_validation_N.any():
            raise DataError(
                f"data.validation: no {data.validation:g} of {len(train)} documents can be split off; "
                "wanted more documents (is `documents: lines` right?), or a source for validation"
            )
        validation = train.select(np.flatnonzero(is_validation_N))
        train = train.select(np.flatnonzero(~is_validation_N))
        hashes_N, held_out_N = hashes_N[~is_validation_N], hashes_N[is_validation_N]
    else:
        validation = load_documents(data.validation, column=column, key="data.validation", skipped=skipped)
        held_out_N = _hashes(validation, data.split_seed)
    first_rows = np.sort(np.unique(hashes_N, return_index=True)[1])
    facts = {
        "train": {"rows": len(train), "duplicates": len(train) - len(first_rows)},
        "validation": {
            "rows": len(validation),
            "duplicates": len(validation) - len(np.unique(held_out_N)),
            "gzip_bits_per_byte": gzip_bits_per_byte(documents_of(validation)),
        },
        "validation_documents_in_train": int(np.isin(held_out_N, hashes_N).sum()),
        "duplicates_dropped": data.drop_duplicates,
        "skipped": skipped or [],
        "fingerprint": hashlib.sha256(hashes_N.tobytes() + held_out_N.tobytes()).hexdigest(),
    }
    if data.drop_duplicates:
        train = train.select(first_rows)
    return DocumentSplits(train, validation, facts)


def documents_of(rows: datasets.Dataset) -> Iterator[str]:
    """The documents, read a batch at a time."""
    for batch in rows.iter(BATCH_DOCUMENTS):
        yield from batch["text"]


def _hashes(rows: datasets.Dataset, seed: int) -> np.ndarray:
    """A number a document, uint64 (N,): equal for equal texts, and evenly spread."""
    hashes = bytearray()
    for document in documents_of(rows):
        hashes += hashlib.blake2b(f"{seed}\0{document}".encode(), digest_size=HASH_BYTES).digest()
    return np.frombuffer(bytes(hashes), ">u8").astype(np.uint64)
