"""Files and folders that are whole or not there at all: written aside, brought to the disk, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """A path to write to, renamed to `target` at the end: a crash leaves the old file or the new one.

    What a killed process left aside, `.NAME.part`, is overwritten by the next one to write.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.part")
    try:
        yield aside
        sync_file(aside)
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text, aside first."""
    with written_aside(target) as aside:
        aside.write_text(text, encoding="utf-8")


def replace_folder(aside: Path, target: Path) -> None:
    """Put a folder that was written aside where it belongs: a crash leaves all of the old one or of the new.

    Args:
        aside: in the same folder as `target`; its files are brought to the disk first.
        target: what is there is removed.
    """
    for path in aside.rglob("*"):
        if path.is_file():
            sync_file(path)
    replaced = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        target.rename(replaced)
    aside.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk, so that a machine that dies does not lose it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
