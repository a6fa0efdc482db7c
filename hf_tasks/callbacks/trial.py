"""What two steps of a training take: time, memory and disk, measured."""

import resource
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_tasks.callbacks.checkpoints import checkpoint_folders
from hf_tasks.contract.task import Splits

# What the kernel takes as: forget the peak of this process. See proc(5), /proc/PID/clear_refs.
FORGET_PEAK = "5"
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Trial:
    """What a trial of two steps took, and what the rows that it was a part of would take."""

    seconds_per_step: float
    """Of the second step, from batch to weights; the first also sets things up."""
    peak_bytes: int
    """Of the accelerator while training, or of the whole process where there is none."""
    examples: int
    """That an epoch has: rows, or blocks of text."""
    evaluation_seconds: float
    """Of all validation rows."""
    checkpoint_bytes: int
    model_bytes: int


class WatchTrial(TrainerCallback):
    """Measures a training of two steps."""

    def __init__(self) -> None:
        self.seconds_per_step = 0.0
        self.evaluation_seconds = 0.0
        self.peak_bytes = 0
        self.examples = 0
        self._began = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count the examples, and forget what was in memory before."""
        self.examples = len(kwargs["train_dataloader"].dataset)
        _forget_peak()
        self._began = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note what the step took; that of the last one stays."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds_per_step, self._began = now - self._began, now
        self.peak_bytes = _peak()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note what measuring took."""
        self.evaluation_seconds = kwargs["metrics"].get("eval_runtime", 0.0)
        self.peak_bytes = _peak()

    def measured(self, whole: Splits, part: Splits, *, checkpoints: Path, model: Path) -> Trial:
        """What the trial took, with its times for all rows.

        Args:
            whole: rows that the trial had a part of.
            part: rows that it trained and measured on.
            checkpoints: folder of the checkpoints that it left.
            model: folder of the model.
        """
        assert whole.train is not None
        assert part.train is not None
        return Trial(
            seconds_per_step=self.seconds_per_step,
            peak_bytes=self.peak_bytes,
            examples=round(self.examples * len(whole.train) / len(part.train)),
            evaluation_seconds=self.evaluation_seconds * len(whole.validation) / len(part.validation),
            checkpoint_bytes=max(map(folder_bytes, checkpoint_folders(checkpoints).values()), default=0),
            model_bytes=folder_bytes(model),
        )


def folder_bytes(folder: Path) -> int:
    """Size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def memory_bytes() -> int | None:
    """Memory that training may use: of the accelerator, or of the machine; None where that is not known."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1]
    total = _kernel_facts("/proc/meminfo").get("MemTotal")
    allowed = CONTAINER_LIMIT.read_text("ascii").strip() if CONTAINER_LIMIT.is_file() else "max"
    limits = [total, int(allowed) if allowed.isdecimal() else None]
    return min((limit for limit in limits if limit is not None), default=None)


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    # Not everywhere allowed; the peak is then that of the whole program, which is no smaller.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(FORGET_PEAK)


def _peak() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return _kernel_facts("/proc/self/status").get("VmHWM", whole)


def _kernel_facts(path: str) -> dict[str, int]:
    """Lines such as `VmHWM: 1024 kB` in bytes; none where the system has no such file."""
    try:
        lines = Path(path).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines]
    return {parts[0].rstrip(":"): 1024 * int(parts[1]) for parts in words if parts[2:] == ["kB"]}
