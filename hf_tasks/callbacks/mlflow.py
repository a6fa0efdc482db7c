"""Tells MLflow of a training through a journal on disk; a process of its own does the sending.

Nothing here imports mlflow or waits for a server: see journal.py and mlflow_sender.py.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_tasks.callbacks.journal import Journal, TrackingFiles, json_number, read_events
from hf_tasks.callbacks.mlflow_process import SenderProcess
from hf_tasks.callbacks.names import tracked_name

CLOSE_SECONDS = 90.0
# Classes whose every figure is logged at each evaluation.
MOST_CLASSES = 100


class MLflowTracker(TrainerCallback):
    """Keeps a journal of a run and has it sent; a context that closes the run.

    It ends as FINISHED, as KILLED by Ctrl-C or SIGTERM, or as FAILED.

    Points of a resumed training that an earlier part of it has logged already are not logged again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tracking_uri: str,
        experiment: str,
        run_name: str,
        say: Callable[[str], None],
        class_figures: Callable[[], Mapping[str, Mapping[str, float | None]]] = dict,
    ) -> None:
        """Touch nothing yet.

        Args:
            folder: where the journal is kept; a folder that has one continues its MLflow run.
            tracking_uri: of the server, or `sqlite:///FILE`.
            experiment: made if it is not there.
            run_name: shown in MLflow.
            say: told when something could not be sent.
            class_figures: figures of the latest evaluation by class name.
        """
        self.files = TrackingFiles(folder)
        self._sender = SenderProcess(self.files, tracking_uri)
        self._start = {"experiment": experiment, "run_name": run_name}
        self._say = say
        self._class_figures = class_figures
        self._model: dict[str, Any] | None = None
        self._last_steps: dict[str, int] = {}
        self._clock = _StepClock()

    def __enter__(self) -> "MLflowTracker":
        """Open the journal and start to send.

        MLFLOW_RUN_ID names an existing run to log into, MLFLOW_PARENT_RUN_ID one to be nested in.
        """
        self._journal = Journal(self.files.journal)
        for event in read_events(self.files.journal):
            if event.kind == "metrics":
                self._last_steps |= dict.fromkeys(event.content["values"], event.content["step"])
        run_id, parent_run_id = (os.environ.get(f"MLFLOW_{name}RUN_ID") for name in ("", "PARENT_"))
        start = {**self._start, "key": uuid.uuid4().hex, "run_id": run_id, "parent_run_id": parent_run_id}
        self._journal.append("start", start)
        self._sender.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the run, and give the server a bounded time to take what is left."""
        failed = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        self._journal.append("status", {"status": "FINISHED" if kind is None else failed})
        if self._model is not None:
            self._journal.append("model", self._model)
        if lost := self._journal.close():
            self._say(f"MLflow: the disk did not take {lost} records, they are lost: {self.files.journal}")
        self._sender.finish(CLOSE_SECONDS, self._say)

    def log_params(self, values: Mapping[str, str]) -> None:
        """Log parameters; see flatten for nested ones."""
        self._journal.append("params", {"values": values})

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log points of one step; those of a step that was logged before are left out."""
        new = {
            key: json_number(value) for key, value in values.items() if self._last_steps.get(key, -1) < step
        }
        if new:
            self._journal.append("metrics", {"step": step, "values": new})
            self._last_steps |= dict.fromkeys(new, step)

    def log_artifact(self, path: Path, to: str = "") -> None:
        """Have a file sent into a folder of the MLflow run."""
        self._journal.append("artifact", {"path": self._relative(path), "to": to})

    def log_artifacts(self, folder: Path, to: str) -> None:
        """Have all files below a folder, if it is there, sent into a folder of the MLflow run."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.log_artifact(path, (Path(to) / path.parent.relative_to(folder)).as_posix())

    def log_model(self, folder: Path, *, task: str, register_as: str | None) -> None:
        """Have a saved model sent in MLflow's own form, and registered under a name unless that is None.

        It goes last, when the run is closed already: a model is large, and MLflow may not know its kind.
        """
        self._model = {"path": self._relative(folder), "task": task, "register_as": register_as}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock of training steps."""
        self._clock.pause()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count a step and its time."""
        self._clock.step()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log losses and figures of training or of an evaluation."""
        values = split_names(kwargs["logs"])
        if "train/loss" in values and self._clock.seconds > 0:
            samples = self._clock.steps * args.train_batch_size * args.gradient_accumulation_steps
            values["train/samples_per_second"] = samples * args.world_size / self._clock.seconds
            self._clock.reset()
        self.log_metrics(values, state.global_step)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log figures of each class, and leave the time of evaluations out of the clock."""
        self._clock.pause()
        self.log_metrics(class_metrics(_followed(self._class_figures()), "eval"), state.global_step)
        self._journal.sync()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the time of saving out of the clock."""
        self._clock.pause()

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path, self.files.folder)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values as texts under keys with dots, such as `training.learning_rate`; lists as JSON."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = prefix + tracked_name(str(key))
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def split_names(logs: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that a Trainer logs, as `train/loss` and `eval/loss`; `epoch` belongs to both."""
    numbers = {key: float(value) for key, value in logs.items() if isinstance(value, int | float)}
    return {_split_name(key): value for key, value in numbers.items()}


def class_metrics(per_class: Mapping[str, Mapping[str, float | None]], prefix: str) -> dict[str, float]:
    """Figures of each class under its name, such as `best/class/tulip/f1`; those not defined are left out."""
    return {
        f"{prefix}/class/{tracked_name(name)}/{figure}": float(value)
        for name, figures in per_class.items()
        for figure, value in figures.items()
        if value is not None
    }


def _followed(per_class: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """Of each class what changes while training; of many classes F1 alone, as more makes trackers slow."""

    def is_followed(figure: str) -> bool:
        return figure == "f1" if len(per_class) > MOST_CLASSES else figure != "support"

    return {
        name: {figure: value for figure, value in figures.items() if is_followed(figure)}
        for name, figures in per_class.items()
    }


def _split_name(key: str) -> str:
    if key == "epoch":
        return key
    return f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}"


class _StepClock:
    """Seconds that training steps took, without what happens between them."""

    def __init__(self) -> None:
        self.reset()
        self.pause()

    def reset(self) -> None:
        self.steps, self.seconds = 0, 0.0

    def pause(self) -> None:
        self._last = time.perf_counter()

    def step(self) -> None:
        now = time.perf_counter()
        self.steps, self.seconds, self._last = self.steps + 1, self.seconds + now - self._last, now
