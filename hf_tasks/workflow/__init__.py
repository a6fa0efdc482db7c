"""Recipes carried out: training, measuring, predicting, comparing, exporting, delivering.

Its four functions are imported when they are asked for, so that `folders` can refuse what is wrong at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_tasks.workflow.evaluation import evaluate, report
    from hf_tasks.workflow.training import check, run

__all__ = ["check", "evaluate", "report", "run"]

_MODULES = {"evaluate": "evaluation", "report": "evaluation", "check": "training", "run": "training"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
