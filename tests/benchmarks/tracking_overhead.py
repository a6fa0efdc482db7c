"""What MLflow costs a training step while its server is unreachable; each step logs, which is the worst case.

    python tests/benchmarks/tracking_overhead.py

Tells the processor time that the callback takes from the training process, and the share of a core that the
process which sends uses beside it.
"""

import tempfile
import time
from pathlib import Path

import psutil
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_tasks.callbacks.mlflow import MLflowTracker

STEPS = 5000
STARTING_SECONDS = 12
IDLE_SECONDS = 20
UNREACHABLE = "http://127.0.0.1:9"


def seconds_per_step(tracker: MLflowTracker, folder: Path) -> float:
    """Mean processor seconds of the callback in a step that logs four values."""
    arguments, state, control = TrainingArguments(output_dir=str(folder)), TrainerState(), TrainerControl()
    start = time.thread_time()
    for step in range(1, STEPS + 1):
        state.global_step = step
        logs = {"loss": 0.5, "grad_norm": 1.25, "learning_rate": 1e-3, "epoch": step / 45}
        tracker.on_step_end(arguments, state, control)
        tracker.on_log(arguments, state, control, logs=logs)
    return (time.thread_time() - start) / STEPS


def main() -> None:
    """Print both figures."""
    with tempfile.TemporaryDirectory() as name:
        tracker = MLflowTracker(
            Path(name) / "tracking", tracking_uri=UNREACHABLE, experiment="x", run_name="x", say=print
        )
        with tracker:
            seconds = seconds_per_step(tracker, Path(name))
            time.sleep(STARTING_SECONDS)
            [sender] = psutil.Process().children()
            before = sum(sender.cpu_times()[:2])
            time.sleep(IDLE_SECONDS)
            share = (sum(sender.cpu_times()[:2]) - before) / IDLE_SECONDS
    print(f"{seconds * 1e6:.0f} microseconds a step; the process that sends: {share:.1%} of a core")


if __name__ == "__main__":
    main()
