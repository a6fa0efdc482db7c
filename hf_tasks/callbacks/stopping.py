"""When training ends before its last epoch, counted from the history, so that resuming forgets nothing."""

from typing import Any

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments

from hf_tasks.callbacks.history import evaluation_results


class StopEarly(EarlyStoppingCallback):
    """Stops after so many evaluations without a better result, the ones before a crash included."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count what the history holds already."""
        super().on_train_begin(args, state, control, **kwargs)
        self.early_stopping_patience_counter = evaluations_without_gain(
            state, args, threshold=self.early_stopping_threshold or 0.0
        )


def evaluations_without_gain(state: TrainerState, args: TrainingArguments, *, threshold: float) -> int:
    """How many evaluations have passed since one was better than all before it by more than the threshold."""
    sign = 1 if args.greater_is_better else -1
    results = [sign * value for value in evaluation_results(state, args).values()]
    best, passed = float("-inf"), -1  # the first evaluation always counts as a gain
    for result in results:
        passed = 0 if passed < 0 or result - best > threshold else passed + 1
        best = max(best, result)
    return max(passed, 0)


def training_has_ended(
    state: TrainerState, args: TrainingArguments, *, patience: int | None, threshold: float = 0.0
) -> bool:
    """Whether a checkpoint's state is that of the last step, as the arguments plan it now.

    Args:
        state: of the checkpoint.
        args: of the run that would go on.
        patience: evaluations without gain after which training stops; None for no early stopping.
        threshold: by how much a result must be better to count.
    """
    if patience is not None and evaluations_without_gain(state, args, threshold=threshold) >= patience:
        return True
    if args.max_steps > 0:
        return state.global_step >= args.max_steps
    return (state.epoch or 0.0) >= args.num_train_epochs
