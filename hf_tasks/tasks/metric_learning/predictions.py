"""What a person reads of a search: tables of queries and of mistakes, and embeddings of new files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import TimmWrapperImageProcessor

from hf_tasks.contract.answers import Predictions, RetrievalAnswers
from hf_tasks.contract.exports import Arrays, Network
from hf_tasks.images.decode import load_rgb
from hf_tasks.images.reading import answered_files
from hf_tasks.images.transform import ValidationTransform
from hf_tasks.tasks.metric_learning.data import RetrievalSplits
from hf_tasks.tasks.metric_learning.measure import Retrieval
from hf_tasks.tasks.metric_learning.model import embed, load_embedder

INCORRECT, UNCOORDINATED = "incorrect", "uncoordinated"
"""Accepted with a class that is not the query's; refused by distance."""


def build_predictions(
    retrieval: Retrieval, splits: RetrievalSplits, *, metrics: Mapping[str, Any]
) -> Predictions:
    """A row a query, the tables `incorrect` and `uncoordinated`, and all of it for drawing.

    Columns: `path`, `true` (class), `is_known` (the gallery has its class), `predicted` (class of the nearest
    gallery picture), `distance` (1 - cosine) to it, `is_accepted`, `couple` (the nearest gallery picture
    itself), and `nearest_match`, `match_distance`, `match_rank` of the nearest picture of the true class.
    """
    rows, scores = splits.validation, retrieval.scores
    paths = np.asarray(rows["path"][:], dtype=object)
    names = np.asarray(splits.validation_names, dtype=object)[np.asarray(rows["label"][:])]
    gallery_paths, gallery_names = paths[retrieval.gallery_rows_G], names[retrieval.gallery_rows_G]
    query_names = names[retrieval.query_rows_Q]
    nearest_Q = scores.neighbours_QK[:, 0]
    distances_QK = 1 - scores.neighbour_cosines_QK
    is_accepted_Q = distances_QK[:, 0] <= retrieval.cutoff_distance
    is_right_Q = scores.first_match_rank_Q == 1
    table = pa.table(
        {
            "path": paths[retrieval.query_rows_Q].tolist(),
            "true": query_names.tolist(),
            "is_known": scores.matches_Q > 0,
            "predicted": _texts(gallery_names, nearest_Q),
            "distance": _numbers(distances_QK[:, 0]),
            "is_accepted": is_accepted_Q,
            "couple": _texts(gallery_paths, nearest_Q),
            "nearest_match": _texts(gallery_paths, scores.first_match_Q),
            "match_distance": _numbers(1 - scores.first_match_cosine_Q),
            "match_rank": pa.array(scores.first_match_rank_Q, mask=scores.first_match_rank_Q == 0),
        }
    )
    answers = RetrievalAnswers(
        query_paths=paths[retrieval.query_rows_Q].tolist(),
        gallery_paths=gallery_paths.tolist(),
        query_classes=query_names.tolist(),
        gallery_classes=gallery_names.tolist(),
        neighbours_QK=scores.neighbours_QK,
        distances_QK=distances_QK,
        is_known_Q=scores.matches_Q > 0,
        cutoff_distance=retrieval.cutoff_distance,
        embeddings_GD=retrieval.embeddings_ND[retrieval.gallery_rows_G],
        load_query=lambda query: load_rgb(rows[int(retrieval.query_rows_Q[query])]["image"]),
        load_gallery=lambda place: load_rgb(rows[int(retrieval.gallery_rows_G[place])]["image"]),
    )
    further = {
        INCORRECT: table.filter(pa.array(is_accepted_Q & ~is_right_Q)).sort_by("distance"),
        UNCOORDINATED: table.filter(pa.array(~is_accepted_Q)).sort_by("distance"),
    }
    return Predictions(metrics, table, answers, further_tables=further)


class EmbeddingPredictor:
    """A saved network for picture files; reads ahead in threads while it works."""

    def __init__(self, folder: Path, network: Network | None = None) -> None:
        """Load a model folder; the picture preparation is the one saved with the model.

        Args:
            folder: configuration and weights.
            network: answers in place of the saved weights, from pixel_values to unit vectors.
        """
        self.network = _saved_network(folder) if network is None else network
        self.transform = ValidationTransform(TimmWrapperImageProcessor.from_pretrained(folder))

    def __call__(self, paths: Sequence[Path], *, batch_size: int) -> Iterator[Mapping[str, Any]]:
        """One row a file, in order: `path`, `embedding` (unit vector) or the `error` of an unreadable one."""
        return answered_files(paths, self.transform, self._answers, batch_size=batch_size)

    def _answers(self, pictures: Sequence[torch.Tensor]) -> dict[str, list[list[float]]]:
        if not pictures:
            return {"embedding": []}
        embeddings_ND = self.network({"pixel_values": torch.stack(list(pictures)).numpy()})
        return {"embedding": embeddings_ND.tolist()}


def _saved_network(folder: Path) -> Network:
    """The saved weights, on the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_embedder(folder).to(device).eval()

    def network(inputs: Arrays) -> np.ndarray:
        with torch.inference_mode():
            return embed(model, torch.from_numpy(inputs["pixel_values"]).to(device)).cpu().numpy()

    return network


def _texts(texts_G: np.ndarray, places_Q: np.ndarray) -> list[str | None]:
    return [texts_G[place] if place >= 0 else None for place in places_Q]


def _numbers(distances_Q: np.ndarray) -> pa.Array:
    return pa.array(distances_Q, mask=~np.isfinite(distances_Q))
