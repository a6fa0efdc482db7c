"""The format that fits a budget best."""

from collections.abc import Sequence
from dataclasses import dataclass

from hf_tasks.errors import ExportError
from hf_tasks.export.parity import Record


@dataclass(frozen=True)
class Budget:
    """What an export may cost; None leaves a limit out."""

    latency_ms: float | None = None
    """Median for a batch of one on this machine."""
    max_metric_loss: float | None = None
    """Of the task's own metric, absolute."""


def choose_format(records: Sequence[Record], budget: Budget) -> Record:
    """The best proved file within the budget.

    With a limit on the loss, all losses within it count alike and the fastest file wins; without one, the
    most accurate wins, and the faster of equals.

    Args:
        records: of files that are used alike: all plain, none from pixels.
        budget: the limits.

    Raises:
        ExportError: no file fits; the message says how near each came.
    """
    fitting = [record for record in records if record.passed and _fits(record, budget)]
    if not fitting:
        lines = [
            f"  {record.format}: {record.latency_ms[1].median:.2f} ms, "
            f"{record.metric.name} loses {record.metric.loss:.4f}{'' if record.passed else ' (refused)'}"
            for record in records
        ]
        advice = "the files stay; loosen export.budget, name further formats, or train a smaller model"
        raise ExportError("\n".join(["export.budget: no format fits; measured:", *lines, advice]))

    def cost(record: Record) -> tuple[float, float]:
        loss = 0.0 if budget.max_metric_loss is not None else record.metric.loss
        return loss, record.latency_ms[1].median

    return min(fitting, key=cost)


def _fits(record: Record, budget: Budget) -> bool:
    is_fast = budget.latency_ms is None or record.latency_ms[1].median <= budget.latency_ms
    return is_fast and (budget.max_metric_loss is None or record.metric.loss <= budget.max_metric_loss)
