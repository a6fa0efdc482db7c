"""What a saved model of pairs says of the rows of new tables."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_tasks.contract.exports import Network
from hf_tasks.data.sources import TextTable
from hf_tasks.data.texts import load_columns
from hf_tasks.tasks.siamese.export import text_inputs
from hf_tasks.tasks.siamese.model import PairModel, load_pair_model
from hf_tasks.tasks.siamese.texts import scores_of_pairs

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".parquet"})


def decisions(scores_N: np.ndarray, threshold: float | None) -> list[int | None]:
    """1 from the threshold on, else 0; None where there is no threshold."""
    return [None if threshold is None else int(score >= threshold) for score in scores_N.tolist()]


class PairPredictor:
    """A saved model for the pairs of tables with the columns that it was trained on."""

    def __init__(self, folder: Path, network: Network | None = None, *, encoding: str = "utf-8") -> None:
        """Load a model folder.

        Args:
            folder: encoder, head and threshold.
            network: embeds texts in place of the saved encoder, from what text_inputs gives.
            encoding: of the tables.
        """
        self.encoding = encoding
        self.network = network
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: PairModel = load_pair_model(folder).to(self.device)
        self.model.encoder.eval()
        self.columns = [self.model.columns["text_1"], self.model.columns["text_2"]]

    def __call__(self, paths: Sequence[Path], *, batch_size: int) -> Iterator[Mapping[str, Any]]:
        """A row of each pair, in order; that of a pair with a missing text holds its `error`.

        Raises:
            DataError: a table cannot be read, or lacks a column.
        """
        for path in paths:
            wanted = {f"{path}: column of {part}": self.model.columns[part] for part in ("text_1", "text_2")}
            rows = load_columns(TextTable(table=str(path), encoding=self.encoding), wanted, key=str(path))
            for start in range(0, len(rows), batch_size):
                batch = rows[start : start + batch_size]
                pairs = list(zip(*(batch[column] for column in self.columns), strict=True))
                yield from self._rows(path, start + 1, pairs)

    def _rows(
        self, path: Path, first: int, pairs: Sequence[tuple[str | None, str | None]]
    ) -> Iterator[dict[str, Any]]:
        whole = [pair for pair in pairs if all(text and text.strip() for text in pair)]
        scores_N = self._scores(whole)
        answers = iter(zip(scores_N.tolist(), decisions(scores_N, self.model.threshold), strict=True))
        for row, pair in enumerate(pairs, start=first):
            texts = dict(zip(self.columns, pair, strict=True))
            if all(text and text.strip() for text in pair):
                score, predicted = next(answers)
                error = None
            else:
                score, predicted, error = None, None, f"{path}: row {row}: a text is missing"
            yield {
                "table": str(path),
                "row": row,
                **texts,
                "score": score,
                "predicted": predicted,
                "error": error,
            }

    def _scores(self, pairs: Sequence[tuple[str | None, str | None]]) -> np.ndarray:
        if not pairs:
            return np.zeros(0)
        texts = sorted({str(text) for pair in pairs for text in pair}, key=lambda text: (len(text), text))
        numbers = {text: number for number, text in enumerate(texts)}
        embeddings_TD = self._embeddings(texts)
        first_N, second_N = np.array([[numbers[str(text)] for text in pair] for pair in pairs]).T
        return scores_of_pairs(self.model, embeddings_TD, first_N, second_N)

    def _embeddings(self, texts: list[str]) -> np.ndarray:
        if self.network is not None:
            return self.network(text_inputs(self.model, texts))
        # Beside tensors, newer encoders get the name of what they read.
        inputs = {
            name: value.to(self.device) if isinstance(value, torch.Tensor) else value
            for name, value in self.model.preprocess(texts).items()
        }
        with torch.inference_mode():
            return self.model.encoder(inputs)["sentence_embedding"].float().cpu().numpy()
