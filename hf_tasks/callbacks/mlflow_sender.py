"""The process that sends a run's journal to MLflow, so that training waits for nothing but its own disk.

`python -m hf_tasks.callbacks.mlflow_sender FOLDER` sends the journal in a tracking folder to the server that
MLFLOW_TRACKING_URI names. It follows the journal until its standard input ends or has a line, then sends what
is left for as long as the server answers.
"""

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from requests import HTTPError

from hf_tasks.callbacks.journal import Bookmark, Event, TrackingFiles, read_events
from hf_tasks.callbacks.mlflow_server import ServerRun
from hf_tasks.files import sync_file

ALL_SENT, SOME_LEFT, ANOTHER_SENDS = 0, 3, 4
POLL_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
PATIENCE_SECONDS = 10.0
LOCK_SECONDS = 60.0
POINTS_PER_BATCH = 1000
SQLITE = "sqlite:///"

_PASSWORD = re.compile(r"//[^/@\s]*@")
_log = logging.getLogger("hf_tasks.mlflow")


def main() -> int:
    """Send a journal; the exit code is ALL_SENT, SOME_LEFT or ANOTHER_SENDS."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    if sys.platform != "win32":
        os.nice(10)  # training comes first
    files = TrackingFiles(Path(sys.argv[1]))
    has_ended = threading.Event()
    threading.Thread(target=_wait_for_end, args=(has_ended,), daemon=True).start()
    lock = FileLock(files.lock)
    while not _acquired(lock):  # what an earlier part of the training left behind may still be sending
        if has_ended.is_set():
            return ANOTHER_SENDS
    return ALL_SENT if follow(files, connect(files), has_ended) else SOME_LEFT


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        return False
    return True


def connect(files: TrackingFiles) -> ServerRun:
    """The run on the server of MLFLOW_TRACKING_URI; an SQLite file gets a folder of artifacts beside it."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    if not uri.startswith(SQLITE):
        return ServerRun(lambda: MlflowClient(uri), files.identity, None)
    database = Path(uri.removeprefix(SQLITE)).resolve()

    def open_database() -> MlflowClient:
        # Of two trainings that make the tables of a new file in the same moment, MLflow fails one or both.
        with FileLock(database.with_name(f".{database.name}.lock")):
            return MlflowClient(uri)

    return ServerRun(open_database, files.identity, (database.parent / "mlartifacts").as_uri())


def follow(
    files: TrackingFiles, run: ServerRun, has_ended: threading.Event, patience: float = PATIENCE_SECONDS
) -> bool:
    """Send events as they are written; True when training has ended and the server has confirmed all.

    Another training may replace the folder meanwhile; its events are for its own process to send.

    Args:
        files: the tracking folder.
        run: where to.
        has_ended: set when no more events will be written.
        patience: after the end, seconds without progress until the rest is left for later.
    """
    pause, last_progress = POLL_SECONDS, time.monotonic()
    place = files.folder.stat()
    while files.folder.is_dir() and os.path.samestat(place, files.folder.stat()):
        is_last_round = has_ended.is_set()
        before = Bookmark.load(files.bookmark).acknowledged
        try:
            send_pending(files, run, has_ended=is_last_round)
        # Artifact stores (S3, GCS, Azure, SFTP) and databases raise errors of libraries of their own, which
        # have no class in common; whatever it is, the journal keeps what is left, and it is tried again.
        except Exception as error:
            _log.warning("not sent: %s: %s", type(error).__name__, _PASSWORD.sub("//", str(error)))
            if Bookmark.load(files.bookmark).acknowledged > before:
                pause, last_progress = POLL_SECONDS, time.monotonic()
            if is_last_round and time.monotonic() - last_progress > patience:
                return False
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        else:
            if is_last_round:
                return True
            pause, last_progress = POLL_SECONDS, time.monotonic()
        if is_last_round:
            time.sleep(POLL_SECONDS)
        elif has_ended.wait(pause):
            last_progress = time.monotonic()
    return False


def send_pending(files: TrackingFiles, run: ServerRun, *, has_ended: bool) -> None:
    """Send every event that the server has not confirmed, in order.

    A training that has ended without a word is closed as FAILED.

    Raises:
        Exception: the server or its store cannot be reached or fails; most often MlflowException or OSError.
    """
    bookmark = Bookmark.load(files.bookmark)
    sync_file(files.journal)  # what is sent is on the disk, so that no bookmark is ever ahead of its journal
    for batch in _batches(read_events(files.journal, bookmark.acknowledged), bookmark.tried):
        is_in_doubt = batch[0].end <= bookmark.tried
        bookmark.begin(batch[-1].end)
        _deliver(files, run, batch, is_in_doubt=is_in_doubt)
        bookmark.acknowledge(batch[-1].end)
    if has_ended:
        _close_abandoned(files, run)


def _batches(events: Iterator[Event], tried: int) -> Iterator[list[Event]]:
    """Points that follow one another go together, those in doubt apart; everything else goes alone."""
    batch: list[Event] = []
    for event in events:
        if batch and not _goes_with(event, batch, tried):
            yield batch
            batch = []
        batch.append(event)
    if batch:
        yield batch


def _goes_with(event: Event, batch: Sequence[Event], tried: int) -> bool:
    return (
        event.kind == batch[0].kind == "metrics"
        and (event.end <= tried) == (batch[0].end <= tried)
        and sum(len(other.content["values"]) for other in batch) < POINTS_PER_BATCH
    )


def _deliver(files: TrackingFiles, run: ServerRun, batch: Sequence[Event], *, is_in_doubt: bool) -> None:
    try:
        _send(files, run, batch, is_in_doubt=is_in_doubt)
    except MlflowException as error:
        # Anything but a refusal may pass, and without a run there is nothing to go on with.
        if error.error_code != "INVALID_PARAMETER_VALUE" or batch[0].kind == "start":
            raise
        if len(batch) == 1:
            _set_aside(files, batch[0], str(error))
        else:
            for event in batch:
                _deliver(files, run, [event], is_in_doubt=True)
    except HTTPError as error:
        # A file that no later attempt makes smaller would keep back all that comes after it.
        if error.response is None or error.response.status_code != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise
        _set_aside(files, batch[0], str(error))


def _send(files: TrackingFiles, run: ServerRun, batch: Sequence[Event], *, is_in_doubt: bool) -> None:
    first = batch[0]
    content = first.content
    match first.kind:
        case "metrics":
            points = [point for event in batch for point in _points(event)]
            run.log_metrics(points, is_in_doubt=is_in_doubt)
        case "start":
            run.start(content, first.time)
        case "params":
            run.log_params(content["values"])
        case "tags":
            run.log_tags(content["values"])
        case "artifact" | "model":
            path = files.folder / content["path"]
            if not path.exists():
                _set_aside(files, first, "it is no longer there")
            elif first.kind == "model":
                run.log_model(path, task=content["task"], register_as=content["register_as"])
            else:
                run.log_artifact(path, content["to"])
        case "status":
            run.set_status(content["status"], first.time)


def _points(event: Event) -> list[Metric]:
    step = event.content["step"]
    return [Metric(key, float(value), event.time, step) for key, value in event.content["values"].items()]


def _set_aside(files: TrackingFiles, event: Event, reason: str) -> None:
    line = {"reason": reason, "number": event.number, "kind": event.kind, "content": event.content}
    with files.refused.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _close_abandoned(files: TrackingFiles, run: ServerRun) -> None:
    """Close the run of a training that was killed: its last word is that it started."""
    words = [event for event in read_events(files.journal) if event.kind in ("start", "status")]
    if words and words[-1].kind == "start":
        last_time = max(event.time for event in read_events(files.journal))
        run.set_status("FAILED", last_time)


def _wait_for_end(has_ended: threading.Event) -> None:
    sys.stdin.readline()
    has_ended.set()


if __name__ == "__main__":
    sys.exit(main())
