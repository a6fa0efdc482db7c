"""An append-only journal on disk of what a tracker is to be told, and a bookmark of what it has been told."""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_tasks.files import write_text


@dataclass(frozen=True)
class TrackingFiles:
    """Files in the tracking folder of a run."""

    folder: Path

    @property
    def journal(self) -> Path:
        """What happened, an event a line."""
        return self.folder / "journal.jsonl"

    @property
    def bookmark(self) -> Path:
        """How far the journal was sent."""
        return self.folder / "sent.json"

    @property
    def identity(self) -> Path:
        """Which run of the tracker it is."""
        return self.folder / "run.json"

    @property
    def refused(self) -> Path:
        """Events that the server will not have, with its reasons."""
        return self.folder / "refused.jsonl"

    @property
    def log(self) -> Path:
        """What the sending process said."""
        return self.folder / "sender.log"

    @property
    def lock(self) -> Path:
        """Held by the one process that sends."""
        return self.folder / "lock"

    def count_unsent(self) -> int:
        """How many events the server has not confirmed."""
        if not self.journal.is_file():
            return 0
        return sum(1 for _ in read_events(self.journal, Bookmark.load(self.bookmark).acknowledged))


@dataclass(frozen=True)
class Event:
    """One line of a journal."""

    number: int
    """From 0, without gaps."""
    time: int
    """Milliseconds since 1970; no two events of a journal have the same, so key and time name a point."""
    kind: str
    content: Mapping[str, Any]
    end: int
    """Bytes of the journal up to the end of this line."""


class Journal:
    """Appends events; only one process may do so at a time.

    What a full disk does not take is kept in memory, and goes with a later event or when it is closed.
    """

    def __init__(self, path: Path) -> None:
        """Open a journal to go on with it, or a new one; half a line that a crash has left is cut off."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._file = path.open("r+b", buffering=0)
        self._unwritten = b""
        self._next_number, self._last_time, end = 0, 0, 0
        for event in read_events(path):
            self._next_number, self._last_time, end = event.number + 1, event.time, event.end
        self._file.truncate(end)
        self._file.seek(end)

    def append(self, kind: str, content: Mapping[str, Any]) -> None:
        """Write an event; it survives this process, and the machine once `sync` has returned."""
        self._last_time = max(int(time.time() * 1000), self._last_time + 1)
        line = {"number": self._next_number, "time": self._last_time, "kind": kind, "content": content}
        self._unwritten += json.dumps(line, ensure_ascii=False).encode() + b"\n"
        self._next_number += 1
        self._write()

    def sync(self) -> None:
        """Have the disk hold all events that it takes."""
        self._write()
        with suppress(OSError):
            os.fsync(self._file.fileno())

    def close(self) -> int:
        """Sync, then close; a closed journal may be closed again.

        Returns:
            How many events the disk did not take.
        """
        if not self._file.closed:
            self.sync()
            self._file.close()
        return self._unwritten.count(b"\n")

    def _write(self) -> None:
        with suppress(OSError):
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]


def read_events(path: Path, start: int = 0) -> Iterator[Event]:
    """The whole events of a journal, which may still grow, from a byte on that begins a line."""
    with path.open("rb") as file:
        file.seek(start)
        end = start
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                fields = json.loads(line)
            except ValueError:  # a machine that died has left a line of something else at the end
                return
            yield Event(fields["number"], fields["time"], fields["kind"], fields["content"], end)


def json_number(value: float) -> float | str:
    """A number as JSON can hold it: NaN and infinity become texts, which float() reads."""
    return value if math.isfinite(value) else str(value)


@dataclass
class Bookmark:
    """How far a journal was sent, kept in a file beside it."""

    path: Path
    place: os.stat_result
    """The folder that it is in; one that has taken its place is left alone."""
    acknowledged: int = 0
    """Bytes of the journal that the server has confirmed."""
    tried: int = 0
    """Bytes that were sent at least once; between the two the server may know an event or not."""

    @classmethod
    def load(cls, path: Path) -> "Bookmark":
        """Read the file; where there is none, nothing has been sent."""
        known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        return cls(path, path.parent.stat(), **known)

    def begin(self, end: int) -> None:
        """Note that the events up to a byte are about to be sent."""
        if end > self.tried:
            self.tried = end
            self._save()

    def acknowledge(self, end: int) -> None:
        """Note that the server has confirmed the events up to a byte."""
        self.acknowledged = end
        self._save()

    def _save(self) -> None:
        if not os.path.samestat(self.place, self.path.parent.stat()):
            raise FileNotFoundError(f"{self.path.parent}: another run has taken its place")
        write_text(self.path, json.dumps({"acknowledged": self.acknowledged, "tried": self.tried}))
