"""Whether every picture of a data set is there and can be decoded, found out before training."""

import hashlib
import os
import stat
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import datasets
import huggingface_hub.constants
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hf_tasks.data.problems import Findings
from hf_tasks.errors import DataError

BATCH_ROWS = 64
# Raise it when `require_readable` begins to refuse what it took before.
CHECK_VERSION = 2

Row = Mapping[str, Any]
RequireReadable = Callable[[Mapping[str, Any]], object]
Answer = TypeVar("Answer")


class _FileFacts(NamedTuple):
    """Size in bytes (0: not usable), what tells a changed picture, and what is wrong, if anything."""

    size: int
    identity: str
    problem: str = ""


def require_pictures(
    rows: datasets.Dataset, require_readable: RequireReadable, *, where: str = "data"
) -> np.ndarray:
    """Check that each row's picture is there and can be decoded.

    Uses all CPU cores, and memory for a few batches of rows. Lists of pictures that passed are remembered in
    HF_HOME/hf_tasks/verified by paths, sizes and times of change (embedded pictures by their bytes), so they
    are not decoded again until one of them changes.

    Args:
        rows: with the columns `image` (undecoded), `path` and `row`.
        require_readable: raises DataError for a picture {"bytes", "path"} that cannot be decoded.
        where: section and source of the rows, as `data.train (train.csv)`, for messages.

    Returns:
        Size of each picture in bytes, int64, in the order of the rows.

    Raises:
        DataError: counts the missing, empty and unreadable pictures, and shows the first ten of each.
    """
    missing = Findings(
        f"{where}: picture files that are not there",
        "paths are relative to the `images` folder, or else to the table's own",
    )
    empty = Findings(f"{where}: picture files without content", "copy them anew, or remove their rows")
    unreadable = Findings(f"{where}: pictures that cannot be decoded", "mend them, or remove their rows")
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        sizes, digest = _inspect_files(rows, pool, missing, empty)
        verified = _verified(digest)
        if missing.count + empty.count == 0 and verified.exists():
            return sizes
        _decode_all(rows, sizes, pool, require_readable, unreadable)
    problems = [str(findings) for findings in (missing, empty, unreadable) if findings.count]
    if problems:
        raise DataError("\n".join(problems))
    _remember(verified)
    return sizes


def picture_problems(rows: datasets.Dataset, require_readable: RequireReadable) -> dict[int, str]:
    """By place, from 0, what is wrong with pictures; the arguments are those of require_pictures."""

    def ask(batch: list[Row]) -> list[str]:
        images = [row["image"] for row in batch]
        return [_picture_facts(image).problem or _decoding_error(image, require_readable) for image in images]

    problems: dict[int, str] = {}
    place = 0
    with (
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
        slow_progress("Decoding each picture once", len(rows)) as advance,
    ):
        for batch, found in _map_batches(pool, ask, _batches(rows)):
            problems |= {place + offset: problem for offset, problem in enumerate(found) if problem}
            place += len(batch)
            advance(len(batch))
    return problems


def remember_readable(rows: datasets.Dataset) -> None:
    """Spare require_pictures the decoding of rows that picture_problems found nothing wrong with."""
    ignored = Findings("", "")
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        _remember(_verified(_inspect_files(rows, pool, ignored, ignored)[1]))


def _verified(digest: str) -> Path:
    return Path(huggingface_hub.constants.HF_HOME) / "hf_tasks" / "verified" / digest


def _remember(verified: Path) -> None:
    # Only a saving of time: where the folder cannot be written, the next run decodes again.
    with suppress(OSError):
        verified.parent.mkdir(parents=True, exist_ok=True)
        verified.touch()


def _inspect_files(
    rows: datasets.Dataset, pool: Executor, missing: Findings, empty: Findings
) -> tuple[np.ndarray, str]:
    """Size of each picture, and one hash over the identity of all."""
    sizes = np.zeros(len(rows), np.int64)
    digest = hashlib.sha256(f"{CHECK_VERSION}\n".encode())
    position = 0
    with slow_progress("Looking at the pictures' files", len(rows)) as advance:
        for batch, facts in _map_batches(pool, _file_facts, _batches(rows)):
            for row, fact in zip(batch, facts, strict=True):
                sizes[position] = fact.size
                digest.update(f"{fact.identity}\n".encode())
                position += 1
                if fact.problem:
                    kind = empty if fact.problem == "no content" else missing
                    kind.add(f"row {row['row']}, {row['path']}: {fact.problem}")
            advance(len(batch))
    return sizes, digest.hexdigest()


def _file_facts(batch: list[Row]) -> list[_FileFacts]:
    return [_picture_facts(row["image"]) for row in batch]


def _picture_facts(image: Mapping[str, Any]) -> _FileFacts:
    content, path = image["bytes"], image["path"]
    if content is not None:
        problem = "" if content else "no content"
        return _FileFacts(len(content), hashlib.sha256(content).hexdigest(), problem)
    if path is None:
        return _FileFacts(0, "", "the cell is empty")
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return _FileFacts(0, "", f"{path}: {reason}{_hint(path)}")
    if not stat.S_ISREG(status.st_mode):
        return _FileFacts(0, "", f"{path} is {'a folder' if stat.S_ISDIR(status.st_mode) else 'no file'}")
    identity = f"{path}\0{status.st_size}\0{status.st_mtime_ns}"
    return _FileFacts(status.st_size, identity, "" if status.st_size else "no content")


def _hint(path: str) -> str:
    """Why a path that looks right to the eye leads nowhere, if that can be told."""
    if "\\" in path:
        return "; folders are parted by / here, not by \\"
    # macOS takes letters like й apart, and other systems do not put them together again.
    form = next((form for form in ("NFC", "NFD") if os.path.exists(unicodedata.normalize(form, path))), None)
    return f"; a file of that name is there in Unicode form {form}, write both alike" if form else ""


def _decode_all(
    rows: datasets.Dataset,
    sizes: np.ndarray,
    pool: Executor,
    require_readable: RequireReadable,
    unreadable: Findings,
) -> None:
    def decode(batch: list[Row]) -> list[str]:
        return [_decoding_error(row["image"], require_readable) for row in batch]

    usable = np.flatnonzero(sizes)
    rows = rows if len(usable) == len(rows) else rows.select(usable)
    with slow_progress("Decoding each picture once", len(rows)) as advance:
        for batch, errors in _map_batches(pool, decode, _batches(rows)):
            for row, error in zip(batch, errors, strict=True):
                if error:
                    unreadable.add(f"row {row['row']}, {row['path']}: {error}")
            advance(len(batch))


def _decoding_error(image: Mapping[str, Any], require_readable: RequireReadable) -> str:
    try:
        require_readable(image)
    except DataError as error:
        return str(error) or "unreadable"
    return ""


def _batches(rows: datasets.Dataset) -> Iterator[list[Row]]:
    columns = rows.select_columns(["image", "path", "row"]).with_format("arrow")
    return (table.to_pylist() for table in columns.iter(batch_size=BATCH_ROWS))


def _map_batches(
    pool: Executor, ask: Callable[[list[Row]], Answer], batches: Iterable[list[Row]]
) -> Iterator[tuple[list[Row], Answer]]:
    """Each batch with its answer, in order; Executor.map would hold all batches at once."""
    waiting: deque[tuple[list[Row], Future[Answer]]] = deque()
    for batch in batches:
        waiting.append((batch, pool.submit(ask, batch)))
        if len(waiting) > 2 * (os.cpu_count() or 1):
            oldest, answer = waiting.popleft()
            yield oldest, answer.result()
    for oldest, answer in waiting:
        yield oldest, answer.result()


@contextmanager
def slow_progress(
    description: str, total: int | None, *, after_seconds: float = 2.0
) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr that appears only when the work takes longer than `after_seconds`.

    Yields:
        A function to call with the number of further rows that are done.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task(description, total=total)
    begin = time.monotonic()

    def advance(rows: int) -> None:
        progress.advance(task, rows)
        if not progress.live.is_started and time.monotonic() - begin > after_seconds:
            progress.start()

    try:
        yield advance
    finally:
        if progress.live.is_started:
            progress.stop()
