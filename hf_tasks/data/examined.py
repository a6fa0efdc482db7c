"""The rows of pictures that a check looks at: all labels, and a sample of pictures that holds each class."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import datasets
import numpy as np

from hf_tasks.contract.examination import Finding, FoundRow, SourceRows
from hf_tasks.data.cleaning import picture_rows, sample_by_class
from hf_tasks.data.label_findings import LabelledRows, Labels, find_label_faults
from hf_tasks.data.sources import Source

SAMPLE_ROWS = 2000
"""Pictures of a section that are decoded, or one of each class where there are more classes."""
COMPARED_ROWS = 500_000
"""Rows of a section whose files are compared, whatever they hold."""


@dataclass
class ExaminedPictures:
    """What was read of the sections of a recipe; `rows`, `labels` and `images` are those to compare."""

    everything: bool
    """Look at all rows instead of a sample."""
    seed: int
    """Of the sample."""
    sources: dict[str, SourceRows] = field(default_factory=dict)
    parts: list[LabelledRows] = field(default_factory=list)
    rows: list[FoundRow] = field(default_factory=list)
    labels: list[Labels | None] = field(default_factory=list)
    images: list[datasets.Dataset] = field(default_factory=list)
    """A part for each section."""
    sampled: list[datasets.Dataset] = field(default_factory=list)
    """Of each part, the pictures that are to be decoded."""
    sampled_places: list[int] = field(default_factory=list)
    """Where those stand among `rows`."""

    def add(
        self,
        section: str,
        source: Source,
        loaded: datasets.Dataset,
        labels_N: Sequence[Labels | None],
        *,
        image_column: str | None,
        label_column: str,
    ) -> None:
        """Keep a section.

        Args:
            section: key below `data`.
            source: where its rows come from.
            loaded: what load_rows returned.
            labels_N: the classes of each row; None where a label is missing.
            image_column: of the recipe, if it names one.
            label_column: of the recipe.
        """
        rows_N = [FoundRow(section, place + 1, path) for place, path in enumerate(loaded["path"][:])]
        limit = len(loaded) if self.everything else max(SAMPLE_ROWS, len(set(labels_N)))
        places = sample_by_class(labels_N, limit=limit, seed=self.seed)
        self.parts.append(LabelledRows(rows_N, labels_N))
        self.sources[section] = picture_rows(
            loaded, source, looked_at=places, image_column=image_column, label_column=label_column
        )
        compared = sample_by_class(labels_N, limit=max(limit, COMPARED_ROWS), seed=self.seed)
        self.sampled_places += (len(self.rows) + np.searchsorted(compared, places)).tolist()
        self.rows += [rows_N[place] for place in compared]
        self.labels += [labels_N[place] for place in compared]
        images = loaded.select_columns(["image"])
        self.images.append(images if len(compared) == len(loaded) else images.select(compared))
        self.sampled.append(images.select(places))

    def label_faults(self, *, are_classes_shared: bool = True, least_classes: int = 2) -> list[Finding]:
        """What is wrong with the labels; nothing is known of them without the rows to train on.

        Args:
            are_classes_shared: whether the other sections have the classes that are trained on.
            least_classes: that make a task.
        """
        if not self.parts or self.parts[0].rows[0].section != "train":
            return []
        return find_label_faults(
            self.parts[0],
            self.parts[1:],
            are_classes_shared=are_classes_shared,
            least_classes=least_classes,
        )
