"""Embeddings of a gallery of pictures or texts on disk, tied to their model, and searches in them.

N entries, Q queries, D width, K neighbours.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hf_tasks.artifacts import Artifacts
from hf_tasks.contract.task import Indexing
from hf_tasks.errors import UserError
from hf_tasks.metrics.approximate import ApproximateSearch, Neighbours
from hf_tasks.metrics.cosines import unit_rows
from hf_tasks.metrics.neighbours import nearest_neighbours
from hf_tasks.workflow.index_file import Index, is_index, only_writer, open_index, require_index, save_index
from hf_tasks.workflow.prediction import (
    Row,
    find_files,
    how_to_read,
    open_writer,
    task_of_run,
    with_names_in_utf8,
)

HASHED_SUFFIXES = frozenset({".json", ".safetensors"})
QUERIES_AT_ONCE = 1024
RECALL_QUERIES = 100
logger = logging.getLogger(__name__)


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
    kind = _open_or_new(folder, run_folder, indexing).kind
    new: dict[str, tuple[str | None, np.ndarray]] = {}
    broken = []
    for row in _embedded(run_folder, galleries, batch_size=batch_size, encoding=encoding):
        if row["error"] is None:
            label = _label(Path(row["path"]), galleries)
            new[_known_as(row[kind], kind)] = label, np.asarray(row["embedding"], np.float32)
        else:
            broken.append(row)
    if not new:
        raise UserError(f"{folder}: none of {len(broken)} inputs could be read: {broken[0]['error']}")
    with only_writer(folder):
        save_index(folder, _with_entries(_open_or_new(folder, run_folder, indexing), new))
    return len(new), broken


def remove_from_index(folder: Path, names: list[str]) -> int:
    """Take entries out of an index, by path or text, or by class; how many.

    Raises:
        UserError: no index, or a name that is neither an entry nor a class in it.
    """
    require_index(folder)
    with only_writer(folder):
        index = open_index(folder)
        known = {*index.entries, *index.labels}
        wanted = {name if name in known else _known_as(name, index.kind) for name in names}
        unknown = sorted(wanted - known)
        if unknown:
            raise UserError(
                f"{folder}: neither a {index.kind} nor a class of this index: {', '.join(unknown)}"
            )
        entries = enumerate(zip(index.entries, index.labels, strict=True))
        kept = [place for place, (entry, label) in entries if entry not in wanted and label not in wanted]
        save_index(folder, index.select(kept))
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
    find: Callable[..., Neighbours] = partial(nearest_neighbours, gallery_GD=index.embeddings_ND)
    if use_faiss:
        find = ApproximateSearch(unit_rows(index.embeddings_ND).numpy())
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
    if run_folder is None and not Artifacts(index.run_folder).model.is_dir():
        raise UserError(f"{folder}: its run is no longer at {index.run_folder}; say where it is with --run")
    _require_model(folder, index, index.run_folder)
    if not index.entries:
        raise UserError(f"{folder}: the index is empty; add to it with `hf-tasks index`")
    return index


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
    if is_index(folder):
        index = open_index(folder)
        _require_model(folder, index, run_folder)
        return index
    # What is hidden is of a first writing that was cut off.
    if folder.exists() and (not folder.is_dir() or not all(path.name[0] == "." for path in folder.iterdir())):
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
    embedder = indexing.load_embedder(Artifacts(run_folder).model, **reading)
    return map(with_names_in_utf8, embedder(paths, batch_size=batch_size))


def _with_entries(index: Index, new: Mapping[str, tuple[str | None, np.ndarray]]) -> Index:
    """The index with more entries, which take the place of those of the same name."""
    kept = index.select([place for place, entry in enumerate(index.entries) if entry not in new])
    labels, embeddings = zip(*new.values(), strict=True)
    width = len(embeddings[0])
    return replace(
        index,
        entries=(*kept.entries, *new),
        labels=(*kept.labels, *labels),
        embeddings_ND=np.concatenate([kept.embeddings_ND.reshape(-1, width), np.stack(embeddings)]),
    )


def _known_as(name: str, kind: str) -> str:
    """A path is kept absolute and without `..`, so that it is the same from every folder."""
    if kind != "path":
        return name
    path = Path(name).absolute()
    return str(path.parent.resolve() / path.name if ".." in path.parts else path)


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
