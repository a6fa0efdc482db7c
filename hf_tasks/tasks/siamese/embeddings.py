"""Embeddings of the texts of new files, for an index of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from hf_tasks.data.documents import load_documents
from hf_tasks.data.sources import TextFile, TextTable
from hf_tasks.data.texts import load_text_rows
from hf_tasks.errors import DataError
from hf_tasks.tasks.siamese.model import PAIRS_FILE, load_pair_model
from hf_tasks.tasks.siamese.predictions import TABLE_SUFFIXES

TEXT_SUFFIXES = TABLE_SUFFIXES | {".txt"}
# Sorted by length among themselves, so that batches pad little.
TEXTS_AT_ONCE = 4096
PLAIN_COLUMN = "text"


def load_cutoff(folder: Path) -> float | None:
    """1 - cosine beyond which a saved model calls no pair true; None where its score is not the cosine."""
    facts = json.loads((folder / PAIRS_FILE).read_text(encoding="utf-8"))
    if facts["score"] != "cosine" or facts["threshold"] is None:
        return None
    return 1 - float(facts["threshold"])


class TextEmbedder:
    """A saved encoder for text files, a text a line, and for tables.

    Of a table the column `text` is read, else those of the pairs that the model was trained on, else the
    only one.
    """

    def __init__(self, folder: Path, *, encoding: str = "utf-8") -> None:
        """Load a model folder; the encoding is that of the files."""
        self.encoding = encoding
        model = load_pair_model(folder)
        self.encoder = model.encoder.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self.columns = [name for part, name in model.columns.items() if part != "label"]

    def __call__(self, paths: Sequence[Path], *, batch_size: int) -> Iterator[Mapping[str, Any]]:
        """One row a text, in order: `path`, `row`, `text`, `embedding` (unit vector) or the `error`.

        Raises:
            DataError: a file cannot be read, or it is not clear which of its columns holds the texts.
        """
        for path in paths:
            texts = self._texts(path)
            while numbered := list(islice(texts, TEXTS_AT_ONCE)):
                yield from self._rows(path, numbered, batch_size)

    def _texts(self, path: Path) -> Iterator[tuple[int, str | None]]:
        """Each text with the number of its row."""
        if path.suffix.lower() == ".txt":
            rows = load_documents(
                TextFile(text=str(path), encoding=self.encoding), column=PLAIN_COLUMN, key=str(path)
            )
        else:
            rows = load_text_rows(TextTable(table=str(path), encoding=self.encoding), key=str(path))
        columns = self._chosen(path, rows.column_names)
        batches = (zip(*(batch[name] for name in columns), strict=True) for batch in rows.iter(TEXTS_AT_ONCE))
        for row, texts in enumerate(chain.from_iterable(batches), start=1):
            yield from ((row, text) for text in texts)

    def _chosen(self, path: Path, there: Sequence[str]) -> list[str]:
        mine = [name for name in self.columns if name in there]
        chosen = [PLAIN_COLUMN] if PLAIN_COLUMN in there else mine or there
        if not mine and len(chosen) > 1:
            raise DataError(
                f"{path}: which column holds the texts? It has {', '.join(there)}; "
                f"name it '{PLAIN_COLUMN}', or {' and '.join(self.columns)} as in training"
            )
        return list(chosen)

    def _rows(
        self, path: Path, numbered: Sequence[tuple[int, str | None]], batch_size: int
    ) -> Iterator[dict[str, Any]]:
        whole = [text for _, text in numbered if text and text.strip()]
        embeddings = iter(
            self.encoder.encode(
                whole, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
            )
        )
        for row, text in numbered:
            found = {"path": str(path), "row": row, "text": text}
            if text and text.strip():
                yield {**found, "embedding": next(embeddings), "error": None}
            else:
                yield {**found, "embedding": None, "error": f"{path}: row {row}: the text is missing"}
