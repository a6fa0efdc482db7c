"""Reports each evaluation to a search, and ends a training that the search gives up."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_tasks.callbacks.history import evaluation_results


class GivenUpError(Exception):
    """A training that was ended because others did better by then."""


class StopHopeless(TrainerCallback):
    """Tells a search the metric for the best model at each evaluation, counted from 1.

    The count compares trials whose batches, and so whose steps, differ.
    """

    def __init__(self, is_hopeless: Callable[[int, float], bool]) -> None:
        """Args: is_hopeless: given the count and the metric, says whether to end the training."""
        self.is_hopeless = is_hopeless
        self.result: float | None = None
        """Metric of the weights that training ends with: the best, or the last if the best is not kept."""

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report.

        Raises:
            GivenUpError: the search gives this training up.
        """
        results = list(evaluation_results(state, args).values())
        best = max(results) if args.greater_is_better else min(results)
        self.result = best if args.load_best_model_at_end else results[-1]
        if self.is_hopeless(len(results), results[-1]):
            raise GivenUpError(f"given up after evaluation {len(results)}")
