"""Embeddings of a gallery of pictures or texts on disk, tied to their model, and searches in them.

N entries, Q queries, D width, K neighbours.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hf_tasks.artifacts import Artifacts, write_json
from hf_tasks.contract import Indexing
from hf_tasks.errors import UserError
from hf_tasks.files import written_aside
from hf_tasks.metrics.approximate import ApproximateSearch, Neighbours
from hf_tasks.metrics.cosines import unit_rows
from hf_tasks.metrics.neighbours import nearest_neighbours
from hf_tasks.workflow.prediction import Row, find_files, how_to_read, open_writer, task_of_run

FACTS_FILE, ENTRIES_FILE, EMBEDDINGS_FILE = "index.json", "entries.parquet", "embeddings.safetensors"
TENSOR = "embeddings"
HASHED_SUFFIXES = frozenset({".json", ".safetensors"})
QUERIES_AT_ONCE = 1024
RECALL_QUERIES = 100
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Index:
    """A gallery: what each entry is, where it lies among the others, and whose embeddings they are."""

    run_folder: Path
    model_hash: str
    cutoff_distance: float | None
    """1 - cosine beyond which a query is refused; None where the model has no such distance."""
    kind: str
    """What an entry is known by: `path` or `text`."""
    entries: tuple[str, ...]
    """Absolute paths, or texts; each once."""
    labels: tuple[str | None, ...]
    embeddings_ND: np.ndarray

    def find_exactly(self, queries_QD: np.ndarray, *, count: int) -> Neighbours:
        """Places and cosines of the entries nearest to each query."""
        return nearest_neighbours(queries_QD, self.embeddings_ND, count=count)

    def select(self, places: list[int]) -> "Index":
        """Some of the entries."""
        return replace(
            self,
            entries=tuple(self.entries[place] for place in places),
            labels=tuple(self.labels[place] for place in places),
            embeddings_ND=self.embeddings_ND[places],
        )


def add_to_index(
    folder: Path,
    run_folder: Path,
    galleries: list[Path],
    *,
    batch_size: int,
    encoding: str | None = None,
) -> tuple[int, list[Row]]:
    """Write an index, or add to the one that is there; equal paths or texts are embedded anew.

    The class of an entry is the name of the sub-folder of the gallery that its file lies in, if any.

    Args:
        folder: of the index.
        run_folder: a finished run of a task that gives embeddings.
        galleries: files, or folders that are searched through.
        batch_size: inputs per step of the model.
        encoding: of tables and text files; None for UTF-8.

    Returns:
        How many were added, and the rows of those that could not be read.

    Raises:
        UserError: no finished run, nothing to add, or the index belongs to another model.
    """
    indexing = _indexing(run_folder)
    index = _open_or_new(folder, run_folder, indexing)
    unique: dict[str, tuple[str | None, np.ndarray]] = {}
    broken = []
    for row in _embedded(run_folder, galleries, batch_size=batch_size, encoding=encoding):
        if row["error"] is None:
            label = _label(Path(row["path"]), galleries)
            unique[_known_as(row[index.kind], index.kind)] = label, np.asarray(row["embedding"], np.float32)
        else:
            broken.append(row)
    if not unique:
        raise UserError(f"{folder}: none of {len(broken)} inputs could be read: {broken[0]['error']}")
    kept = index.select([place for place, entry in enumerate(index.entries) if entry not in unique])
    embeddings = np.stack([embedding for _, embedding in unique.values()])
    _save(
        folder,
        replace(
            index,
            entries=(*kept.entries, *unique),
            labels=(*kept.labels, *(label for label, _ in unique.values())),
            embeddings_ND=np.concatenate([kept.embeddings_ND.reshape(-1, embeddings.shape[1]), embeddings]),
        ),
    )
    return len(unique), broken


def remove_from_index(folder: Path, names: list[str]) -> int:
    """Take entries out of an index, by path or text, or by class; how many.

    Raises:
        UserError: no index, or a name that is neither an entry nor a class in it.
    """
    index = open_index(folder)
    known = {*index.entries, *index.labels}
    wanted = {name if name in known else _known_as(name, index.kind) for name in names}
    unknown = sorted(wanted - known)
    if unknown:
        raise UserError(f"{folder}: neither a {index.kind} nor a class of this index: {', '.join(unknown)}")
    entries = enumerate(zip(index.entries, index.labels, strict=True))
    kept = [place for place, (entry, label) in entries if entry not in wanted and label not in wanted]
    _save(folder, index.select(kept))
    return len(index.entries) - len(kept)


def search_index(
    index: Index,
    inputs: list[Path],
    out: Path,
    *,
    count: int,
    batch_size: int,
    use_faiss: bool = False,
    encoding: str | None = None,
) -> tuple[int, int]:
    """Write the nearest entries of each input, and count inputs that were searched and broken ones.

    A row holds `path` (its file; of a text also `row` and `text`), `predicted` (class of the nearest entry),
    `distance` (1 - cosine), `is_accepted` (within the model's cut-off), then `neighbour_1`, `class_1`,
    `distance_1` and so on, and `error`.

    Args:
        index: what open_for_search returned.
        inputs: files, or folders that are searched through.
        out: .csv, .jsonl or .parquet file.
        count: neighbours of each input.
        batch_size: inputs per step of the model.
        use_faiss: search with FAISS, and log how many of the true neighbours it finds; else exactly.
        encoding: of tables and text files; None for UTF-8.

    Raises:
        UserError: FAISS is asked for and not there, or nothing to search for.
    """
    writer = open_writer(out)
    find = ApproximateSearch(unit_rows(index.embeddings_ND).numpy()) if use_faiss else index.find_exactly
    answers = _embedded(index.run_folder, inputs, batch_size=batch_size, encoding=encoding)
    done = broken = 0
    with writer as write:
        while rows := list(islice(answers, QUERIES_AT_ONCE)):
            if isinstance(find, ApproximateSearch) and not done:
                _tell_recall(find, rows, count)
            for row in _search(index, rows, count, find):
                done, broken = done + (row["error"] is None), broken + (row["error"] is not None)
                write(row)
    return done, broken


def open_for_search(folder: Path, run_folder: Path | None = None) -> Index:
    """Read an index, with the run that embeds what is looked for in it.

    Args:
        folder: of the index.
        run_folder: where the run lies now; left out: where it lay when the index was written.

    Raises:
        UserError: no index, an empty one, or the run has another model than the index.
    """
    index = open_index(folder)
    index = replace(index, run_folder=run_folder or index.run_folder)
    _require_model(folder, index, index.run_folder)
    if not index.entries:
        raise UserError(f"{folder}: the index is empty; add to it with `hf-tasks index`")
    return index


def open_index(folder: Path) -> Index:
    """Read an index.

    Raises:
        UserError: there is none, or its files do not belong together.
    """
    if not (folder / FACTS_FILE).is_file():
        raise UserError(f"{folder}: no index; wanted a folder that `hf-tasks index` has written")
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        entries = pq.read_table(folder / ENTRIES_FILE)
        embeddings_ND = load_file(folder / EMBEDDINGS_FILE)[TENSOR]
    except (OSError, ValueError, LookupError, SafetensorError) as error:
        raise UserError(f"{folder}: the index is damaged: {error}; write it anew") from error
    if len(entries) != len(embeddings_ND) or facts["entries"] != len(entries):
        raise UserError(f"{folder}: its files are of different writings; write the index anew")
    return Index(
        run_folder=Path(facts["run"]),
        model_hash=facts["model_hash"],
        cutoff_distance=facts["cutoff_distance"],
        kind=entries.column_names[0],
        entries=tuple(entries.column(0).to_pylist()),
        labels=tuple(entries.column("label").to_pylist()),
        embeddings_ND=embeddings_ND,
    )


def hash_model(run_folder: Path) -> str:
    """SHA-256 over the weights of a run's model and all that is set in its folder, such as its tokenizer."""
    model = Artifacts(run_folder).model
    digest = hashlib.sha256()
    for path in sorted(path for path in model.rglob("*") if path.suffix in HASHED_SUFFIXES):
        digest.update(path.relative_to(model).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _open_or_new(folder: Path, run_folder: Path, indexing: Indexing) -> Index:
    if (folder / FACTS_FILE).is_file():
        index = open_index(folder)
        _require_model(folder, index, run_folder)
        return index
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out: {folder} is there and is no index; name a new folder")
    return Index(
        run_folder=run_folder.absolute(),
        model_hash=hash_model(run_folder),
        cutoff_distance=indexing.load_cutoff(Artifacts(run_folder).model),
        kind=indexing.entry,
        entries=(),
        labels=(),
        embeddings_ND=np.zeros((0, 0), np.float32),
    )


def _indexing(run_folder: Path) -> Indexing:
    task = task_of_run(run_folder)
    if task.indexing is None:
        raise UserError(
            f"{run_folder}: its task, {task.name}, gives no embeddings; "
            "wanted a run of metric-learning or siamese"
        )
    return task.indexing


def _embedded(
    run_folder: Path, inputs: list[Path], *, batch_size: int, encoding: str | None
) -> Iterator[Row]:
    indexing = _indexing(run_folder)
    paths = list(find_files(inputs, indexing.file_suffixes))
    reading = how_to_read(encoding, holds_texts=indexing.entry == "text")
    return indexing.load_embedder(Artifacts(run_folder).model, **reading)(paths, batch_size=batch_size)


def _known_as(name: str, kind: str) -> str:
    """A path is kept absolute, so that it is the same from every folder."""
    return str(Path(name).absolute()) if kind == "path" else name


def _require_model(folder: Path, index: Index, run_folder: Path) -> None:
    if hash_model(run_folder) != index.model_hash:
        raise UserError(
            f"{folder}: its embeddings were made by another model than that of {run_folder}, and cannot be "
            "compared; write an index of the gallery anew"
        )


def _label(path: Path, galleries: list[Path]) -> str | None:
    for gallery in galleries:
        if path.is_relative_to(gallery) and path != gallery:
            parts = path.relative_to(gallery).parts
            return parts[0] if len(parts) > 1 else None
    return None


def _save(folder: Path, index: Index) -> None:
    """Facts last: a crash before leaves files that open_index refuses, never ones that lie."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {index.kind: pa.array(index.entries, pa.string()), "label": pa.array(index.labels, pa.string())}
    (folder / FACTS_FILE).unlink(missing_ok=True)
    with written_aside(folder / ENTRIES_FILE) as aside:
        pq.write_table(pa.table(entries), aside)
    with written_aside(folder / EMBEDDINGS_FILE) as aside:
        save_file({TENSOR: np.ascontiguousarray(index.embeddings_ND)}, aside)
    facts = {
        "run": str(index.run_folder),
        "model_hash": index.model_hash,
        "cutoff_distance": index.cutoff_distance,
        "entries": len(index.entries),
    }
    write_json(folder / FACTS_FILE, facts)


def _tell_recall(find: ApproximateSearch, rows: list[Row], count: int) -> None:
    some = [row["embedding"] for row in rows if row["error"] is None][:RECALL_QUERIES]
    if some:
        share = find.recall(np.asarray(some, np.float32), count=count)
        logger.info(f"FAISS finds {share:.1%} of the {count} nearest, measured on {len(some)} queries")


def _search(
    index: Index, rows: list[Row], count: int, find: Callable[..., Neighbours]
) -> Iterator[dict[str, Any]]:
    readable = [row["embedding"] for row in rows if row["error"] is None]
    found: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())
    if readable:
        queries_QD = np.asarray(readable, np.float32)
        places_QK, cosines_QK = find(queries_QD, count=count)
        found = iter(zip(places_QK, 1 - cosines_QK, strict=True))
    for row in rows:
        places_K, distances_K = (None, None) if row["error"] is not None else next(found)
        yield _search_row(index, row, places_K, distances_K, min(count, len(index.entries)))


def _search_row(
    index: Index, row: Row, places_K: np.ndarray | None, distances_K: np.ndarray | None, count: int
) -> dict[str, Any]:
    said = {name: value for name, value in row.items() if name not in ("embedding", "error")}
    answer: dict[str, Any] = {**said, "predicted": None, "distance": None, "is_accepted": None}
    neighbours = {
        f"{name}_{rank}": None for rank in range(1, count + 1) for name in ("neighbour", "class", "distance")
    }
    if places_K is not None and distances_K is not None:
        for rank, (place, distance) in enumerate(
            zip(places_K.tolist(), distances_K.tolist(), strict=True), 1
        ):
            found = (index.entries[place], index.labels[place], distance)
            names = (f"neighbour_{rank}", f"class_{rank}", f"distance_{rank}")
            neighbours |= dict(zip(names, found, strict=True))
        nearest = distances_K[0].item()
        within = None if index.cutoff_distance is None else nearest <= index.cutoff_distance
        answer |= {"predicted": index.labels[places_K[0]], "distance": nearest, "is_accepted": within}
    return {**answer, **neighbours, "error": row["error"]}
