"""Keeps the n best checkpoints and the last, and tells whole checkpoints from those a crash cut short."""

import re
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

COMPLETE_MARK = "complete"
_FOLDER = re.compile(r"checkpoint-(\d+)")


class KeepCheckpoints(TrainerCallback):
    """Marks each checkpoint once all processes have written it, then removes those not worth keeping.

    The Trainer's own save_total_limit must be off: it removes an old checkpoint before the new one is
    known to be whole.
    """

    def __init__(self, keep_best: int) -> None:
        """Args: keep_best: how many of the best to keep besides the last; by metric_for_best_model."""
        self.keep_best = keep_best

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Point the best checkpoint at this run's folder, which may have moved since it was saved."""
        if state.best_global_step:
            best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
            state.best_model_checkpoint = str(best) if best.is_dir() else None

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Mark the checkpoint just written as whole and drop the ones that are neither best nor last."""
        PartialState().wait_for_everyone()
        if not state.is_world_process_zero:
            return
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE_MARK).touch()
        kept = {state.global_step, *best_steps(state, args, count=self.keep_best)}
        for step, folder in checkpoint_folders(Path(args.output_dir)).items():
            if step not in kept:
                shutil.rmtree(folder)


def best_steps(state: TrainerState, args: TrainingArguments, *, count: int) -> list[int]:
    """Steps of the best evaluations so far, best first; of equal ones the earlier."""
    name = args.metric_for_best_model
    if name is None:
        return []
    key = name if name.startswith("eval_") else f"eval_{name}"
    sign = -1 if args.greater_is_better else 1
    evaluations = {entry["step"]: entry[key] for entry in state.log_history if key in entry}
    return sorted(evaluations, key=lambda step: (sign * evaluations[step], step))[:count]


def checkpoint_folders(folder: Path) -> dict[int, Path]:
    """Checkpoints in a folder, whole or not, by step, in rising order."""
    found = {
        int(match[1]): path for path in folder.glob("checkpoint-*") if (match := _FOLDER.fullmatch(path.name))
    }
    return dict(sorted(found.items()))


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; None when there is none."""
    whole = [path for path in checkpoint_folders(folder).values() if (path / COMPLETE_MARK).is_file()]
    return whole[-1] if whole else None


def remove_incomplete_checkpoints(folder: Path) -> None:
    """Delete what a crash left half written."""
    for path in checkpoint_folders(folder).values():
        if not (path / COMPLETE_MARK).is_file():
            shutil.rmtree(path)
