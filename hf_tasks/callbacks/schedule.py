"""Whether a run is long enough for its learning rate's schedule."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_tasks.errors import RecipeError


class RequireRoomForSchedule(TrainerCallback):
    """Refuses a warm-up and a decay that are longer together than the run.

    The schedule of transformers would begin somewhere inside the decay, and say nothing.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compare steps.

        Raises:
            RecipeError: they do not fit.
        """
        if args.lr_scheduler_type != "warmup_stable_decay":
            return
        warmup = args.get_warmup_steps(state.max_steps)
        decay = (args.lr_scheduler_kwargs or {}).get("num_decay_steps", 0)
        if warmup + decay > state.max_steps:
            raise RecipeError(
                [
                    f"training.lr_scheduler_kwargs.num_decay_steps: {decay} steps of decay after {warmup} of "
                    f"warm-up, but the run has {state.max_steps}; shorten them, or train longer"
                ]
            )
