"""The file that an index is: what each entry is known by, its class and its embedding, and whose they are.

N entries, D width.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from hf_tasks.errors import UserError
from hf_tasks.files import written_aside

NAME, LOCK = "index.parquet", ".lock"
FACTS = b"hf_tasks"
"""Key of the facts among the metadata of the table."""
KINDS = ("path", "text")


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

    def select(self, places: list[int]) -> "Index":
        """Some of the entries."""
        return replace(
            self,
            entries=tuple(self.entries[place] for place in places),
            labels=tuple(self.labels[place] for place in places),
            embeddings_ND=self.embeddings_ND[places],
        )


def is_index(folder: Path) -> bool:
    """Whether an index was written to a folder."""
    return (folder / NAME).is_file()


def require_index(folder: Path) -> None:
    """Refuse a folder without an index.

    Raises:
        UserError: there is none.
    """
    if not is_index(folder):
        raise UserError(f"{folder}: no index; wanted a folder that `hf-tasks index` has written")


def open_index(folder: Path) -> Index:
    """Read an index.

    Raises:
        UserError: there is none, or it is damaged.
    """
    require_index(folder)
    try:
        table = pq.read_table(folder / NAME)
        facts = json.loads(table.schema.metadata[FACTS])
        _require_written_here(table, facts["cutoff_distance"])
        embeddings = table.column("embedding").combine_chunks()
        embeddings_ND = np.array(embeddings.flatten()).reshape(len(table), embeddings.type.list_size)
        return Index(
            run_folder=Path(facts["run"]),
            model_hash=facts["model_hash"],
            cutoff_distance=facts["cutoff_distance"],
            kind=table.column_names[0],
            entries=tuple(table.column(0).to_pylist()),
            labels=tuple(table.column("label").to_pylist()),
            embeddings_ND=embeddings_ND,
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: the index is damaged: {error}; write it anew") from error


def _require_written_here(table: pa.Table, cutoff_distance: object) -> None:
    """Check what save_index writes and its readers rely on.

    Raises:
        ValueError: columns of another name or type, empty cells, or numbers that are none.
    """
    kind, embeddings = table.column_names[0], table.column("embedding")
    width = embeddings.type.list_size
    wanted = pa.schema(
        {kind: pa.string(), "label": pa.string(), "embedding": pa.list_(pa.float32(), width)}.items()
    )
    if kind not in KINDS or not table.schema.equals(wanted):
        found = ", ".join(f"{field.name} ({field.type})" for field in table.schema)
        raise ValueError(f"found the columns {found}")
    if table.column(0).null_count or not np.isfinite(embeddings.combine_chunks().flatten()).all():
        raise ValueError(f"an entry without {kind}, or an embedding that is no finite vector")
    if cutoff_distance is not None and not isinstance(cutoff_distance, int | float):
        raise ValueError(f"found the cut-off {cutoff_distance!r}")


def save_index(folder: Path, index: Index) -> None:
    """Write an index in the place of the one that is there; whoever is killed meanwhile leaves that one."""
    facts = {
        "run": str(index.run_folder),
        "model_hash": index.model_hash,
        "cutoff_distance": index.cutoff_distance,
    }
    numbers = pa.array(np.ascontiguousarray(index.embeddings_ND, np.float32).reshape(-1))
    columns = {
        index.kind: pa.array(index.entries, pa.string()),
        "label": pa.array(index.labels, pa.string()),
        "embedding": pa.FixedSizeListArray.from_arrays(numbers, index.embeddings_ND.shape[1]),
    }
    table = pa.table(columns).replace_schema_metadata({FACTS: json.dumps(facts)})
    with written_aside(folder / NAME) as aside:
        # Embeddings are as good as random: they would take time, and no less room.
        pq.write_table(table, aside, compression="none", use_dictionary=False, write_statistics=False)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Wait until nobody else writes to an index, so that what two add at once are both in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        yield
