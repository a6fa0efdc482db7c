"""Optimum's view of a plan; imported only where Optimum is."""

from collections import OrderedDict
from typing import Any

from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.tasks import TasksManager
from optimum.utils import NormalizedConfig
from torch import Tensor

from hf_tasks.contract.exports import ExportPlan


class PlanOnnxConfig(OnnxConfig):
    """An OnnxConfig for any network: names, axes and example inputs are those of the plan."""

    NORMALIZED_CONFIG_CLASS = NormalizedConfig
    DUMMY_INPUT_GENERATOR_CLASSES = ()

    def __init__(self, plan: ExportPlan, axes: dict[str, dict[int, str]]) -> None:
        """Keep plan and axes; the model must have a `config`, as Optimum looks into it."""
        super().__init__(plan.model.config, task=plan.optimum_task)
        self._plan = plan
        self._axes = axes

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Names and free axes of the inputs."""
        return OrderedDict((name, self._axes[name]) for name in self._plan.inputs)

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Name and free axes of the output."""
        return OrderedDict({self._plan.output: self._axes[self._plan.output]})

    def generate_dummy_inputs(self, framework: str = "pt", **kwargs: Any) -> dict[str, Tensor]:
        """The plan's example inputs."""
        return dict(self._plan.inputs)


def config_with_past(plan: ExportPlan) -> OnnxConfig:
    """Optimum's own config of a causal language model: it knows how each architecture keeps its past.

    Raises:
        ValueError: Optimum does not know how this architecture does.
    """
    config: Any = plan.model.config
    try:
        build = TasksManager.get_exporter_config_constructor(
            "onnx", model=plan.model, task=plan.optimum_task, library_name="transformers"
        )
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"Optimum knows no '{config.model_type}' with past; set export.backend: torch, "
            "which writes it without"
        ) from error
    return build(config, use_past=True, use_past_in_inputs=True)
