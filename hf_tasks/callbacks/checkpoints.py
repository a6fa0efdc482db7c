"""Keeps the n best checkpoints and the last, and tells whole checkpoints from those a crash cut short."""

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from accelerate import PartialState
from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_tasks.callbacks.history import evaluation_results
from hf_tasks.errors import UserError
from hf_tasks.files import sync_file, write_text

COMPLETE_MARK = "complete"
STATE_FILE = "trainer_state.json"  # written by the Trainer
# The words of the system, and of torch.save, which forgets the system's.
NO_ROOM = (
    *map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)),
    "failed writing file",
    "unexpected pos",
)
_FOLDER = re.compile(r"checkpoint-(\d+)")


class KeepCheckpoints(TrainerCallback):
    """Marks each checkpoint once all processes have written it, then removes those not worth keeping.

    The Trainer's own save_total_limit must be off: it removes an old checkpoint before the new one is known
    to be whole.
    """

    def __init__(self, keep_best: int) -> None:
        """Args: keep_best: how many of the best to keep besides the last; by metric_for_best_model."""
        self.keep_best = keep_best

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Finish what a crash may have cut short."""
        settle_checkpoints(state, args, keep_best=self.keep_best)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Mark the checkpoint just written as whole and drop the ones that are neither best nor last."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            files = [path for path in folder.iterdir() if path.is_file()]
            for path in files:  # a machine that dies must not keep the mark and lose the tensors
                sync_file(path)
            sizes = {path.name: path.stat().st_size for path in sorted(files)}
            write_text(folder / COMPLETE_MARK, json.dumps(sizes, indent=2))
        settle_checkpoints(state, args, keep_best=self.keep_best)


@contextmanager
def explained_full_disk(folder: Path) -> Iterator[None]:
    """Turn the failure to write a checkpoint, or the model, for want of room into a message for the user.

    Raises:
        UserError: in place of what the libraries say of a full disk.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not any(sign in str(error) for sign in NO_ROOM):
            raise
        last = last_complete_checkpoint(folder)
        kept = "no checkpoint was whole yet" if last is None else f"{last.name} is whole"
        free = shutil.disk_usage(folder).free / 1e6
        raise UserError(
            f"{folder}: no room to write ({free:,.0f} MB free): {error}; {kept}: make room, then go on with "
            "--resume"
        ) from error


@contextmanager
def refused_pickles(checkpoint: str | None) -> Iterator[None]:
    """Turn PyTorch's refusal to unpickle a file of a checkpoint into a message for the user.

    Raises:
        UserError: in place of it.
    """
    try:
        yield
    except UnpicklingError as error:
        if checkpoint is None:
            raise
        raise UserError(
            f"{checkpoint}: holds pickled objects that no checkpoint of a run has, and that are never "
            "loaded; remove this folder to go on from the checkpoint before it"
        ) from error


def state_of(checkpoint: Path) -> TrainerState:
    """The Trainer's state at a whole checkpoint, whose files are still as they were written.

    Without the optimizer's file, for one, the Trainer would go on in silence, to other weights.

    Raises:
        UserError: a file is gone or has another size, or the state is none of this step.
    """
    try:
        sizes = json.loads((checkpoint / COMPLETE_MARK).read_text(encoding="utf-8") or "{}")
        for name, size in sizes.items():
            if (found := (checkpoint / name).stat().st_size) != size:
                raise ValueError(f"{name} has {found:,} bytes, {size:,} were written")
        state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
        if state.global_step != step_of(checkpoint):
            raise ValueError(f"{STATE_FILE} is of step {state.global_step!r}")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{checkpoint}: damaged: {error}; remove this folder to go on from the checkpoint before it"
        ) from error
    return state


def settle_checkpoints(state: TrainerState, args: TrainingArguments, *, keep_best: int) -> None:
    """Name the best checkpoint, and remove those that are neither the last nor among the best.

    The Trainer names the step of the best evaluation, which may not have been saved, and the folder as it was
    called when the checkpoint was written. To be called by all processes.
    """
    found = checkpoint_folders(Path(args.output_dir))
    best = best_steps(state, args, saved=found)
    state.best_model_checkpoint = str(found[best[0]]) if best else None
    PartialState().wait_for_everyone()  # nobody looks any more when the first process removes
    if state.is_world_process_zero:
        for step in found.keys() - {max(found, default=0), *best[:keep_best]}:
            _remove(found[step])


def best_steps(state: TrainerState, args: TrainingArguments, *, saved: Collection[int]) -> list[int]:
    """Saved steps with a finite result, best first; of equal ones the earlier first."""
    sign = -1 if args.greater_is_better else 1
    results = {
        step: value
        for step, value in evaluation_results(state, args).items()
        if step in saved and math.isfinite(value)
    }
    return sorted(results, key=lambda step: (sign * results[step], step))


def checkpoint_folders(folder: Path) -> dict[int, Path]:
    """Checkpoints in a folder, whole or not, by step, in rising order."""
    found = {
        int(match[1]): path for path in folder.glob("checkpoint-*") if (match := _FOLDER.fullmatch(path.name))
    }
    return dict(sorted(found.items()))


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint folder, by its name."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; None when there is none."""
    whole = [path for path in checkpoint_folders(folder).values() if (path / COMPLETE_MARK).is_file()]
    return whole[-1] if whole else None


def remove_incomplete_checkpoints(folder: Path) -> None:
    """Delete what a crash left half written, or half removed."""
    for path in checkpoint_folders(folder).values():
        if not (path / COMPLETE_MARK).is_file():
            shutil.rmtree(path)


def _remove(checkpoint: Path) -> None:
    # The mark first: a removal that is cut short leaves no checkpoint that looks whole.
    (checkpoint / COMPLETE_MARK).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)
