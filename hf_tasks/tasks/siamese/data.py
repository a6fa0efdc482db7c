"""The rows of a run on text pairs: loaded, labelled, looked at, split.

Axes: N rows.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow as pa

from hf_tasks.data.skipping import without_rows
from hf_tasks.data.sources import HubSource, TableSource, TextTable, source_name
from hf_tasks.data.texts import arrow_column, blank_rows, load_columns, require_texts
from hf_tasks.errors import DataError
from hf_tasks.tasks.siamese.labels import is_binary, label_of, read_labels
from hf_tasks.tasks.siamese.settings import Columns, Settings
from hf_tasks.tasks.siamese.split import grouped_split

Kind = Literal["labels", "scores", "pairs", "triplets"]
TEXT_COLUMNS = ("text_1", "text_2", "negative")
WITHOUT_LABEL = {
    "data.columns.label": "; write `label: null` where all pairs belong together, "
    "or for triplets `negative: COLUMN`"
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairSplits:
    """Rows to train on and to validate with; train is None where a saved model is only measured.

    The rows have `text_1`, `text_2`, for triplets `negative`, and `label` (float32 in [0, 1]) where the
    data has labels. `kind` says what they are: pairs with labels 0 and 1, with scores, pairs that all belong
    together, or triplets. `facts` hold JSON values only.
    """

    train: datasets.Dataset | None
    validation: datasets.Dataset
    kind: Kind
    facts: dict[str, Any] = field(default_factory=dict)

    def head(self, rows: int) -> "PairSplits":
        """The first rows of both splits, for a trial; the facts stay those of all rows."""
        train, validation = (
            None if split is None else split.select(range(min(rows, len(split))))
            for split in (self.train, self.validation)
        )
        return replace(self, train=train, validation=validation)


def prepare_splits(settings: Settings) -> PairSplits:
    """Both splits of a recipe, with every text and label checked.

    A fraction is split off as grouped_split says. Of labelled pairs, multiple-negatives trains on those
    labelled 1 alone.

    Raises:
        DataError: rows, texts or labels are not usable, or do not fit the loss.
    """
    data = settings.data
    skipped = list[dict[str, Any]]() if settings.on_bad_example == "skip" else None
    whole = prepare_rows(data.train, data.columns, key="data.train", skipped=skipped)
    kind = kind_of(whole)
    facts: dict[str, Any] = {"kind": kind}
    if isinstance(data.validation, float):
        train, validation, facts["split"] = _split(whole, data.validation, data.split_seed)
    else:
        train, validation = (
            whole,
            prepare_rows(data.validation, data.columns, key="data.validation", skipped=skipped),
        )
        _require_same_kind(kind, validation)
    loss = settings.loss.name if settings.loss is not None else default_loss(kind)
    if kind == "labels":
        _require_both_labels({"data.train": train, "data.validation": validation})
    train = _rows_for_loss(train, kind, loss)
    facts |= {
        "train": _counts(train),
        "validation": _counts(validation),
        "texts_on_both_sides": len(distinct_texts(train) & distinct_texts(validation)),
        "sources": {
            name: source.model_dump()
            for name, source in (("train", data.train), ("validation", data.validation))
            if not isinstance(source, float)
        },
        "skipped": skipped or [],
        "fingerprint": _fingerprint((train, validation)),
    }
    return PairSplits(train, validation, kind, facts)


def prepare_rows(
    source: TableSource | TextTable | HubSource,
    columns: Columns,
    *,
    key: str = "data",
    skipped: list[dict[str, Any]] | None = None,
) -> datasets.Dataset:
    """The rows of a source with the columns that PairSplits describes.

    Rows that cannot be used are put into `skipped`, where it is given, instead of being refused.

    Raises:
        DataError: rows, texts or labels are not usable.
    """
    named = columns.named()
    keys = {f"data.columns.{part}": name for part, name in named.items()}
    rows = load_columns(source, keys, key=key, ways_out=WITHOUT_LABEL)
    where = f"{key} ({source_name(source)})"
    texts = {part: named[part] for part in TEXT_COLUMNS if part in named}
    if skipped is not None:
        reasons = _unusable(rows, list(texts.values()), named.get("label"))
        rows, more = without_rows(rows, reasons, section=key.removeprefix("data."))
        skipped += more
    require_texts(rows, {f"data.columns.{part}": name for part, name in texts.items()}, where=where)
    prepared = {part: arrow_column(rows, name).cast(pa.string()) for part, name in texts.items()}
    if "label" in named:
        prepared["label"] = pa.chunked_array([read_labels(rows, named["label"], where=where)])
    return datasets.Dataset(pa.table(prepared))


def _unusable(rows: datasets.Dataset, texts: Sequence[str], label: str | None) -> dict[int, str]:
    """By place, from 0, why a row cannot be used."""
    reasons: dict[int, str] = {}
    for place, value in enumerate(rows[label][:] if label is not None else ()):
        if label_of(value) is None:
            reasons[place] = f"label {value!r}" if value else "no label"
    for column in texts:
        reasons |= {place: f"no text in column '{column}'" for place in blank_rows(rows, column)}
    return reasons


def kind_of(rows: datasets.Dataset) -> Kind:
    """What prepared rows are."""
    if "negative" in rows.column_names:
        return "triplets"
    if "label" not in rows.column_names:
        return "pairs"
    return "labels" if is_binary(labels_of(rows)) else "scores"


def default_loss(kind: Kind) -> str:
    """The loss of rows of a kind, where the recipe names none."""
    return "cosent" if kind in {"labels", "scores"} else "multiple-negatives"


def labels_of(rows: datasets.Dataset) -> np.ndarray:
    """The labels of prepared rows, float32 (N,)."""
    return arrow_column(rows, "label").to_numpy()


def texts_of(rows: datasets.Dataset) -> list[tuple[str, ...]]:
    """The texts of each row."""
    columns = [arrow_column(rows, name).to_pylist() for name in TEXT_COLUMNS if name in rows.column_names]
    return list(zip(*columns, strict=True))


def distinct_texts(rows: datasets.Dataset) -> set[str]:
    """Every text of the rows once."""
    return {text for texts in texts_of(rows) for text in texts}


def _split(
    whole: datasets.Dataset, fraction: float, seed: int
) -> tuple[datasets.Dataset, datasets.Dataset, dict[str, Any]]:
    """Rows to train on, rows to validate with, and what was done."""
    strata_N = np.zeros(len(whole), np.int64)
    if "label" in whole.column_names:
        strata_N = (labels_of(whole) >= 0.5).astype(np.int64)
    is_validation_N, groups_N = grouped_split(texts_of(whole), strata_N, fraction=fraction, seed=seed)
    done = {
        "fraction": fraction,
        "split_seed": seed,
        "groups": int(groups_N.max()) + 1,
        "largest_group_rows": int(np.bincount(groups_N).max()),
        "validation_share": float(is_validation_N.mean()),
    }
    logger.info(
        "data.validation: %d of %d rows split off (%.1f %%); rows that share a text stay together, "
        "in %d groups, the largest of %d rows",
        is_validation_N.sum(), len(whole), 100 * done["validation_share"], done["groups"],
        done["largest_group_rows"],
    )  # fmt: skip
    parts = [whole.select(np.flatnonzero(part)) for part in (~is_validation_N, is_validation_N)]
    return parts[0], parts[1], done


def _require_same_kind(kind: Kind, validation: datasets.Dataset) -> None:
    found = kind_of(validation)
    if found != kind and {found, kind} != {"labels", "scores"}:
        raise DataError(f"data.validation: holds {found}, data.train {kind}; wanted the same in both")
    if kind == "labels" and found == "scores":
        raise DataError(
            "data.validation: labels between 0 and 1, while those of data.train are all 0 or 1; "
            "wanted the same in both"
        )


def _require_both_labels(parts: Mapping[str, datasets.Dataset]) -> None:
    for key, rows in parts.items():
        labels_N = labels_of(rows)
        if labels_N.min() == labels_N.max():
            ways_out = "add rows of the other kind"
            if key == "data.validation":
                ways_out += ", or have more rows validated"
            if labels_N[0] == 1:
                ways_out += ", or set data.columns.label to null where all pairs belong together"
            raise DataError(
                f"{key}: every label of {len(rows)} rows is {labels_N[0]:g}; wanted pairs of both kinds: "
                f"{ways_out}"
            )


def _rows_for_loss(train: datasets.Dataset, kind: Kind, loss: str) -> datasets.Dataset:
    if kind == "scores" and loss in {"contrastive", "online-contrastive", "multiple-negatives"}:
        raise DataError(
            f"loss.name: '{loss}' wants labels 0 and 1, and data.train holds scores between them; "
            "wanted cosent, cosine-similarity or difference-head"
        )
    if kind == "labels" and loss == "multiple-negatives":
        return train.select(np.flatnonzero(labels_of(train) == 1)).remove_columns("label")
    return train


def _counts(rows: datasets.Dataset) -> dict[str, Any]:
    counts: dict[str, Any] = {"rows": len(rows), "texts": len(distinct_texts(rows))}
    if "label" in rows.column_names:
        labels_N = labels_of(rows)
        counts["mean_label"] = float(labels_N.mean(dtype=np.float64))
    return counts


def _fingerprint(parts: Sequence[datasets.Dataset]) -> str:
    """A hash over texts and labels in the order of the rows, alike on every machine."""
    digest = hashlib.sha256()
    for part in parts:
        for texts in texts_of(part):
            digest.update("\0".join((*texts, "")).encode())
        if "label" in part.column_names:
            digest.update(labels_of(part).tobytes())
    return digest.hexdigest()
