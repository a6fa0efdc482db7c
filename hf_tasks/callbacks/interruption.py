"""Ctrl-C and SIGTERM: the step at hand is finished and saved before a training ends."""

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import torch.distributed
from torch.utils.data._utils import signal_handling
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_tasks.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A terminal and a launcher may both pass on what was pressed once.
SAME_PRESS_SECONDS = 0.5


class SignalWatch:
    """A context that turns Ctrl-C and SIGTERM into Interrupted: at once, or after the step if it holds back.

    A second signal ends the run at once in any case. Outside the main thread signals cannot be watched, and
    nothing changes.
    """

    def __init__(self) -> None:
        """Watch nothing yet."""
        self.received: int | None = None
        self.holds_back = False

    def __enter__(self) -> "SignalWatch":
        """Watch from here on."""
        self._process, self._received_at = os.getpid(), 0.0
        is_main = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.signal(number, self._receive) for number in SIGNALS if is_main}
        self._set_handlers_of_worker = signal_handling._set_worker_signal_handlers
        if is_main:
            signal_handling._set_worker_signal_handlers = self._watch_in_worker
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave signals to whoever had them before."""
        signal_handling._set_worker_signal_handlers = self._set_handlers_of_worker
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            self._receive_in_worker(number)
        elif self.received is None:
            self.received, self._received_at = number, time.monotonic()
            if not self.holds_back:
                raise Interrupted(number, "interrupted")
            if sys.stderr.isatty():
                # The console may be in the middle of a line, and must not be entered twice.
                os.write(2, b"\nsaving after this step; once more stops at once\n")
        elif time.monotonic() - self._received_at > SAME_PRESS_SECONDS:
            raise Interrupted(number, "interrupted at once")

    def _watch_in_worker(self) -> None:
        """PyTorch ends a loader's process by any SIGTERM, and with it the step; here only its parent does."""
        self._set_handlers_of_worker()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_the_parent_asks, daemon=True).start()

    def _receive_in_worker(self, number: int) -> None:
        """A process forked from this one works on: the step at hand may need it."""
        if number == signal.SIGTERM and self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = number


def _end_when_the_parent_asks() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class StopOnSignal(TrainerCallback):
    """Saves a checkpoint after the step in which a signal came, then raises Interrupted.

    At the end of an epoch its evaluation and checkpoint come first: a resumed Trainer would leave them out.
    Of several processes all stop after the same step, whichever of them got the signal. Must be added after
    all callbacks that log and mark checkpoints.
    """

    def __init__(self, watch: SignalWatch) -> None:
        """Args: watch: in which the training runs."""
        self.watch = watch
        self._notes: torch.distributed.Store | None = None
        self._is_leaving = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Hold signals back from here on."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            store = torch.distributed.distributed_c10d._get_default_store()
            self._notes = torch.distributed.PrefixStore("interruption", store)
        self.watch.holds_back = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint inside an epoch."""
        is_epoch_end = control.should_training_stop or float(state.epoch or 0).is_integer()
        if self._is_due(state.global_step) and not is_epoch_end:
            self._leave(control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint after the evaluation of the epoch."""
        if self._is_due(state.global_step):
            self._leave(control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the training.

        Raises:
            Interrupted: the checkpoint that was asked for is written.
        """
        if self._is_leaving:
            assert self.watch.received is not None
            raise Interrupted(self.watch.received, f"stopped at step {state.global_step}, which is saved")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Hold nothing back any more.

        Raises:
            Interrupted: a signal came too late for a checkpoint of its own.
        """
        self.watch.holds_back = False
        if self._is_due(state.global_step):
            assert self.watch.received is not None
            raise Interrupted(self.watch.received, "stopped after the last step")

    def _leave(self, control: TrainerControl) -> None:
        control.should_save = control.should_log = self._is_leaving = True

    def _is_due(self, step: int) -> bool:
        """Whether to stop after this step.

        Processes meet in the gradients of each step: what one of them notes after a step, all have read
        after the next.
        """
        if self._notes is None:
            return self.watch.received is not None
        if self.watch.received is not None and self._notes.add("signals", 1) == 1:
            self._notes.set("stop", f"{step + 1} {self.watch.received}")
        if not self._notes.check(["stop"]):
            return False
        last_step, number = map(int, self._notes.get("stop").split())
        if step >= last_step:
            self.watch.received = number
        return step >= last_step
