"""Recipes carried out: training, measuring, predicting, comparing, exporting, delivering."""

from hf_tasks.workflow.evaluation import evaluate, report
from hf_tasks.workflow.training import check, run

__all__ = ["check", "evaluate", "report", "run"]
