"""What MLflow costs a training step while its server is unreachable; each step logs, which is the worst case.

    python tests/benchmarks/tracking_overhead.py

Blocks of real steps of a small network alternate within one process: in one the callback is told of each
step and the process that sends runs beside it, in the next neither happens. What else the machine does
falls on both. Tells the wall-clock ratio of neighbouring blocks, and the processor time of the callback.
"""

import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
import timm
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_tasks.callbacks.mlflow import MLflowTracker

PAIRS_OF_BLOCKS = 30
STEPS_IN_A_BLOCK = 10
STARTING_SECONDS = 12
MOST_RATIO = 1.02
UNREACHABLE = "http://127.0.0.1:9"


class Steps:
    """Steps of a network on pictures of 32 pixels, told to a tracker or not."""

    def __init__(self, tracker: MLflowTracker, folder: Path) -> None:
        torch.set_num_threads(1)
        self._tracker = tracker
        self._arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none")
        self._state, self._control = TrainerState(), TrainerControl()
        self._network = timm.create_model("resnet10t", num_classes=10)
        self._optimizer = torch.optim.AdamW(self._network.parameters())
        self._pictures, self._labels = torch.rand(8, 3, 32, 32), torch.arange(8)
        self.told_seconds, self.told = 0.0, 0

    def block(self, *, tell: bool) -> float:
        """Seconds of a block of steps."""
        start = time.perf_counter()
        for _ in range(STEPS_IN_A_BLOCK):
            loss = torch.nn.functional.cross_entropy(self._network(self._pictures), self._labels)
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
            if tell:
                self._tell(loss.item())
        return time.perf_counter() - start

    def _tell(self, loss: float) -> None:
        start = time.thread_time()
        self._state.global_step += 1
        logs = {"loss": loss, "grad_norm": 1.25, "learning_rate": 1e-3, "epoch": self._state.global_step / 45}
        self._tracker.on_step_end(self._arguments, self._state, self._control)
        self._tracker.on_log(self._arguments, self._state, self._control, logs=logs)
        self.told_seconds += time.thread_time() - start
        self.told += 1


def ratio_of_pair(steps: Steps, sender: psutil.Process, *, first: bool) -> float:
    """Seconds of a block with the tracker, the first or the second of two, over those of one without."""
    seconds = {}
    for tell in (first, not first):
        sender.send_signal(signal.SIGCONT if tell else signal.SIGSTOP)
        seconds[tell] = steps.block(tell=tell)
    return seconds[True] / seconds[False]


def say(ratios: list[float], steps: Steps) -> None:
    """Print the figures, before the tracker is given its time to close."""
    ratio = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4)
    print(
        f"a step with the tracker takes {ratio:.4f} of one without (half of {len(ratios)} pairs lie ", end=""
    )
    print(f"between {low:.3f} and {high:.3f}; at most {MOST_RATIO})")
    print(f"the callback itself: {1e6 * steps.told_seconds / steps.told:.0f} microseconds a step")


def main() -> None:
    """Print the figures, and fail where the limit is passed."""
    with tempfile.TemporaryDirectory() as name:
        tracker = MLflowTracker(
            Path(name) / "tracking", tracking_uri=UNREACHABLE, experiment="x", run_name="x", say=print
        )
        with tracker:
            steps = Steps(tracker, Path(name))
            time.sleep(STARTING_SECONDS)
            [sender] = psutil.Process().children()
            steps.block(tell=False)
            ratios = [ratio_of_pair(steps, sender, first=pair % 2 == 0) for pair in range(PAIRS_OF_BLOCKS)]
            sender.send_signal(signal.SIGCONT)
            say(ratios, steps)
    if statistics.median(ratios) > MOST_RATIO:
        sys.exit("over the limit")


if __name__ == "__main__":
    main()
