"""The Trainer's log history: without gaps, and what can be worked out from it."""

from itertools import pairwise
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class LogBeforePauses(TrainerCallback):
    """Logs the training loss before every evaluation and checkpoint, and at the last step.

    The Trainer forgets the losses since its last log when it is killed. Logged with each checkpoint, the
    history of a resumed run is that of an uninterrupted one. Must be added after the Trainer's own callbacks.
    """

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a log where the step ends with more than the next step."""
        if control.should_evaluate or control.should_save or control.should_training_stop:
            control.should_log = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a log where the epoch ends with more than the next epoch."""
        self.on_step_end(args, state, control)


def evaluation_results(state: TrainerState, args: TrainingArguments) -> dict[int, float]:
    """metric_for_best_model by step, in the order of the evaluations; empty without such a metric."""
    name = args.metric_for_best_model
    if name is None:
        return {}
    key = name if name.startswith("eval_") else f"eval_{name}"
    return {entry["step"]: entry[key] for entry in state.log_history if key in entry}


def mean_training_loss(state: TrainerState) -> float | None:
    """The training loss averaged over all logged steps, to four digits; None when nothing was logged."""
    logged = {entry["step"]: entry["loss"] for entry in state.log_history if "loss" in entry}
    if not logged:
        return None
    total = sum(logged[step] * (step - before) for before, step in pairwise([0, *logged]))
    return round(total / max(logged), 4)
