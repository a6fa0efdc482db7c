"""Whether evaluations give the figure that the best checkpoint is chosen by."""

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_tasks.errors import require_measured


class RequireBestMetric(TrainerCallback):
    """Refuses a `metric_for_best_model` that an evaluation does not give."""

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        metrics: Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        """Look for it.

        Raises:
            MetricError: it is not there.
        """
        known = [name.removeprefix("eval_") for name in metrics if name.startswith("eval_")]
        require_measured(args.metric_for_best_model, known)
