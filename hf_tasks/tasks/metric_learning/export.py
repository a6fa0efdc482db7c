"""How an embedding network is exported: pixels to a unit vector, judged by the neighbours that it finds.

Legend of axes: N examples, Q queries, G gallery, D width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from transformers import TimmWrapperImageProcessor

from hf_tasks.contract.exports import Arrays, Decisions, ExportPlan, Pictures, PictureSteps
from hf_tasks.errors import ExportError
from hf_tasks.images.decode import load_rgb
from hf_tasks.images.steps import picture_steps
from hf_tasks.images.transform import ValidationTransform
from hf_tasks.metrics.retrieval import NOBODY
from hf_tasks.tasks.metric_learning.data import RetrievalSplits
from hf_tasks.tasks.metric_learning.model import Embedder, embed
from hf_tasks.tasks.metric_learning.own_pictures import own_gallery_rows
from hf_tasks.tasks.metric_learning.settings import Settings

OUTPUT = "embedding"
AXES = {"pixel_values": {0: "batch"}, OUTPUT: {0: "batch"}}
SIZE = {"pixel_values": {2: "height", 3: "width"}}
CALIBRATION_BATCH = 32


class UnitEmbedder(nn.Module):
    """The network with its normalisation: what every export holds."""

    def __init__(self, embedder: Embedder) -> None:
        """Keep the network."""
        super().__init__()
        self.embedder = embedder
        self.config = embedder.config

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Unit vectors of prepared pictures, float32 (batch, width)."""
        return embed(self.embedder, pixel_values)


def exported_module(embedder: Embedder) -> UnitEmbedder:
    """What is exported of a saved network."""
    return UnitEmbedder(embedder.to("cpu")).eval()


def plan_export(settings: Settings, model: nn.Module, splits: RetrievalSplits) -> ExportPlan:
    """The plan for an embedding network: from pixel_values to unit vectors, judged by Recall@1.

    Args:
        settings: of the recipe.
        model: the network, or what the Trainer wrapped it in together with its loss.
        splits: the run's rows.
    """
    embedder: Embedder = getattr(model, "embedder", model)
    processor = TimmWrapperImageProcessor(
        embedder.config.pretrained_cfg, architecture=embedder.config.architecture
    )
    transform, steps = ValidationTransform(processor), picture_steps(processor.data_config)
    search = _Search(splits.validation)
    noise = torch.Generator().manual_seed(0)
    return ExportPlan(
        model=exported_module(embedder),
        inputs={"pixel_values": torch.empty(2, 3, *steps.crop).normal_(generator=noise)},
        output=OUTPUT,
        axes=AXES,
        size_axes=SIZE,
        optimum_task="feature-extraction",
        quantization="static",
        rows=len(splits.validation),
        batches=lambda rows, size: _batches(splits.validation.select(rows), transform, size),
        calibration=lambda examples: _calibration(splits, transform, examples),
        answers=lambda embeddings_ND, rows: embeddings_ND,
        decide=search.decide,
        metric="recall_at_1",
        measure=search.recall_at_1,
        pictures=Pictures(
            steps=steps,
            load=lambda row: np.array(load_rgb(splits.validation[row]["image"])),
            activation="none",
            answer=OUTPUT,
        ),
        facts=_facts(embedder, splits, steps),
        save_beside=embedder.config.save_pretrained,
    )


class _Search:
    """Queries among the gallery of the same validation rows; nobody finds their own picture or group."""

    def __init__(self, validation: datasets.Dataset) -> None:
        self.is_query_N = np.asarray(validation["is_query"][:], bool)
        self.is_gallery_N = np.asarray(validation["is_gallery"][:], bool)
        self.labels_N = np.asarray(validation["label"][:])
        self.groups_N = np.asarray(validation["group"][:])
        self.own_N = own_gallery_rows(validation)

    def decide(self, embeddings_ND: np.ndarray, rows: Sequence[int]) -> Decisions:
        """The nearest gallery row of each query, and its lead in cosine over the next."""
        _, gallery_rows_G, cosines_QG = self._cosines(embeddings_ND, rows)
        if cosines_QG.shape[1] == 1:
            cosines_QG = np.pad(cosines_QG, ((0, 0), (0, 1)), constant_values=-1.0)
        highest_Q2 = np.partition(cosines_QG, -2, axis=1)[:, -2:]
        return Decisions(gallery_rows_G[cosines_QG.argmax(axis=1)], highest_Q2[:, 1] - highest_Q2[:, 0])

    def recall_at_1(self, embeddings_ND: np.ndarray, rows: Sequence[int]) -> float:
        """Share of queries whose nearest is of their class, among those that have one among the rows."""
        query_rows_Q, gallery_rows_G, cosines_QG = self._cosines(embeddings_ND, rows)
        is_match_QG = self.labels_N[query_rows_Q][:, None] == self.labels_N[gallery_rows_G]
        is_known_Q = (is_match_QG & (cosines_QG > -1)).any(axis=1)
        is_right_Q = np.take_along_axis(is_match_QG, cosines_QG.argmax(axis=1)[:, None], axis=1)[:, 0]
        return float(is_right_Q[is_known_Q].mean()) if is_known_Q.any() else 0.0

    def _cosines(
        self, embeddings_ND: np.ndarray, rows: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of queries and gallery among the given ones, and cosines; -2 where one may not be found."""
        rows_N = np.asarray(rows)
        is_query_N, is_gallery_N = self.is_query_N[rows_N], self.is_gallery_N[rows_N]
        if not is_query_N.any() or not is_gallery_N.any():
            raise ExportError("export.sample: it has no query or no gallery picture; set export.sample: all")
        query_rows_Q, gallery_rows_G = rows_N[is_query_N], rows_N[is_gallery_N]
        embeddings = embeddings_ND.astype(np.float64)
        cosines_QG = np.clip(embeddings[is_query_N] @ embeddings[is_gallery_N].T, -1, 1)
        is_own_QG = self.own_N[query_rows_Q][:, None] == gallery_rows_G
        groups_Q = self.groups_N[query_rows_Q][:, None]
        is_same_group_QG = (groups_Q != NOBODY) & (groups_Q == self.groups_N[gallery_rows_G])
        return query_rows_Q, gallery_rows_G, np.where(is_own_QG | is_same_group_QG, -2.0, cosines_QG)


def _batches(rows: datasets.Dataset, transform: ValidationTransform, size: int) -> Iterator[Arrays]:
    for start in range(0, len(rows), size):
        images = rows[start : start + size]["image"]
        yield {"pixel_values": torch.stack([transform(load_rgb(image)) for image in images]).numpy()}


def _calibration(splits: RetrievalSplits, transform: ValidationTransform, examples: int) -> Iterator[Arrays]:
    """Training pictures, spread over all rows and without augmentation; validation pictures stay unseen."""
    if splits.train is None:
        raise ExportError("export: calibration needs the training rows, and this run has none")
    count = min(examples, len(splits.train))
    spread = np.linspace(0, len(splits.train) - 1, count).astype(int).tolist()
    return _batches(splits.train.select(spread), transform, CALIBRATION_BATCH)


def _facts(embedder: Embedder, splits: RetrievalSplits, steps: PictureSteps) -> dict[str, Any]:
    return {
        "architecture": embedder.config.architecture,
        "preprocessing": {"colours": "RGB", "levels": 255, **asdict(steps)},
        "cutoff_distance": getattr(embedder.config, "cutoff_distance", None),
        "data_fingerprint": splits.facts.get("fingerprint"),
    }
