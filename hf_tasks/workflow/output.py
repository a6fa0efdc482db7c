"""The folder that a training writes to: its own while it lasts, and the run it replaces kept till then."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from transformers import TrainingArguments

from hf_tasks.artifacts import Artifacts
from hf_tasks.callbacks.checkpoints import last_complete_checkpoint, remove_incomplete_checkpoints
from hf_tasks.errors import UserError

# Workers of a killed training hold its folder until they look for it, which PyTorch's do every 5 seconds.
WAIT_SECONDS = 15


@contextmanager
def held_output(artifacts: Artifacts, arguments: TrainingArguments, *, overwrite: bool) -> Iterator[None]:
    """Hold a run's folder; a replaced run comes back if the new one fails before a checkpoint.

    Raises:
        UserError: another training holds it.
    """
    folder = artifacts.folder.resolve()  # a link, as to a larger disk, stays
    aside = folder.with_name(f".{folder.name}.replaced")
    is_first = arguments.process_index == 0
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    with arguments.main_process_first(local=False):
        if is_first:
            _take(lock, folder)
        if is_first and overwrite and folder.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            folder.mkdir()
        elif is_first:
            remove_incomplete_checkpoints(artifacts.checkpoints)
    try:
        yield
    except BaseException:
        if is_first and aside.is_dir() and last_complete_checkpoint(artifacts.checkpoints) is None:
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
        raise
    finally:
        if is_first:
            shutil.rmtree(aside, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def _take(lock: FileLock, folder: Path) -> None:
    """The system frees the lock when the process ends, however it ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=WAIT_SECONDS)
    except Timeout:
        raise UserError(
            f"output: another training is writing to {folder}; wait for its end, or name another folder: "
            "output=runs/NAME"
        ) from None
