"""A progress bar and a line of figures per evaluation on a terminal, plain lines elsewhere."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ShowProgress(TrainerCallback):
    """Replaces the Trainer's bars and dictionaries; speaks on the first process alone."""

    def __init__(self, console: Console, metric_names: tuple[str, ...]) -> None:
        """Show progress on a console.

        Args:
            console: where to draw; without a terminal only the lines are printed.
            metric_names: figures shown after each evaluation, such as `accuracy`.
        """
        self.console = console
        self.metric_names = metric_names
        self.train_loss: float | None = None
        self._progress: Progress | None = None
        self._training: TaskID | None = None
        self._evaluation: TaskID | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the bar where training starts or goes on."""
        self._open(state)
        if self._progress is not None:
            self._training = self._progress.add_task(
                "training", total=state.max_steps, completed=state.global_step, figures=""
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the bar by a step."""
        if self._progress is not None and self._training is not None:
            self._progress.update(self._training, completed=state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the training loss beside the bar."""
        self.train_loss = kwargs["logs"].get("loss", self.train_loss)
        if self._progress is not None and self._training is not None and self.train_loss is not None:
            self._progress.update(self._training, figures=f"loss {self.train_loss:.4f}")

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the bar of an evaluation."""
        self._open(state)
        if self._progress is None:
            return
        if self._evaluation is None:
            batches = len(kwargs["eval_dataloader"])
            self._evaluation = self._progress.add_task("evaluation", total=batches, figures="")
        self._progress.advance(self._evaluation)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Print a line of figures."""
        self._close_evaluation()
        if not state.is_world_process_zero:
            return
        metrics = kwargs["metrics"]
        shown = [
            f"{name} {metrics[key]:.4f}" for name in self.metric_names if (key := f"eval_{name}") in metrics
        ]
        train_loss = [] if self.train_loss is None else [f"train loss {self.train_loss:.4f}"]
        epoch = "evaluation" if state.epoch is None else f"epoch {_progress_in_epochs(state, args)}"
        for line in _lines([epoch, *train_loss, *shown], self.console.width):
            self.console.print(line, highlight=False)

    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the bar of the prediction away."""
        self.close()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the bars away."""
        self.close()

    def close(self) -> None:
        """Take the bars away; safe to call twice, and after a failure."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._training = self._evaluation = None

    def _open(self, state: TrainerState) -> None:
        if self._progress is not None or not state.is_world_process_zero or not self.console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("{task.description:10}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            transient=True,
        )
        self._progress.start()

    def _close_evaluation(self) -> None:
        if self._progress is not None and self._evaluation is not None:
            self._progress.remove_task(self._evaluation)
        self._evaluation = None


def _lines(parts: Sequence[str], width: int) -> list[str]:
    """The parts in a line, or in more, where a terminal is narrow; none is torn."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(f"  {part}")
    return lines


def _progress_in_epochs(state: TrainerState, args: TrainingArguments) -> str:
    """Epochs that are done, to two digits, of those that are planned, which max_steps may end inside one."""
    done, planned = state.epoch or 0.0, float(args.num_train_epochs)
    if args.max_steps > 0:
        planned = done * state.max_steps / state.global_step if state.global_step else state.num_train_epochs
    return f"{round(done, 2):g}/{round(planned, 2):g}"
