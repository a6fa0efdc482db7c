"""ONNX files of a plan's network: through Optimum, or through torch.onnx where Optimum cannot be imported."""

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from onnx.external_data_helper import uses_external_data
from torch.export import Dim
from torch.onnx.errors import OnnxExporterError

from hf_tasks.contract.exports import ExportPlan
from hf_tasks.errors import ExportError
from hf_tasks.export.network import exported_module, free_axes

OPSET = 18
WITH_PAST = "-with-past"

logger = logging.getLogger(__name__)

Backend = Literal["auto", "optimum", "torch"]


def write_onnx(
    plan: ExportPlan, target: Path, *, backend: Backend = "auto", has_free_size: bool = False
) -> None:
    """Write the network, inputs and output named as in the plan, the batch free.

    Args:
        plan: what is exported.
        target: the file to write.
        backend: optimum, torch (torch.export and onnxscript), or auto: Optimum where it can be imported.
        has_free_size: free the plan's size axes too.

    Raises:
        ExportError: the backend is not installed, or cannot express the network.
    """
    write = _write_with_optimum if choose_backend(backend) == "optimum" else _write_with_torch
    if write is _write_with_torch and plan.optimum_task.endswith(WITH_PAST):
        logger.warning(
            "export.backend: torch writes a language model without past: for each token the whole text is "
            "read again; Optimum writes it with past (pip install 'hf_tasks[onnx]', transformers < 4.58)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write(plan, target, free_axes(plan, has_free_size=has_free_size))
    except (RuntimeError, ValueError, TypeError, OnnxExporterError) as error:
        # torch.onnx wraps the reason in advice to those who work on PyTorch.
        told = error.__cause__ or error
        reason = str(told).strip().splitlines() or [type(told).__name__]
        raise ExportError(f"export: this model cannot be written as ONNX: {reason[0]}") from error


def choose_backend(backend: Backend) -> Literal["optimum", "torch"]:
    """The exporter that is used.

    Raises:
        ExportError: it is not installed.
    """
    has_optimum = _can_import_optimum()
    if backend == "optimum" and not has_optimum:
        raise ExportError(
            "export.backend: optimum's ONNX part cannot be imported here; install it with pip install "
            "'hf_tasks[onnx]' (it needs transformers < 4.58), or set export.backend: torch"
        )
    chosen: Literal["optimum", "torch"] = "optimum" if has_optimum and backend != "torch" else "torch"
    if chosen == "torch" and find_spec("onnxscript") is None:
        raise ExportError(
            "export.backend: torch needs the package onnxscript; install it with "
            "pip install 'hf_tasks[onnx-torch]'"
        )
    return chosen


def add_metadata(file: Path, metadata: dict[str, str]) -> None:
    """Put texts into an ONNX file's metadata, in place of those that it has; weights beside it stay there."""
    model = onnx.load(file, load_external_data=False)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, file)


def has_weights_beside(model: onnx.ModelProto) -> bool:
    """Whether weights lie in a second file, as of a graph above 2 GiB, which protobuf does not hold."""
    return any(map(uses_external_data, model.graph.initializer))


def save_weights_beside(model: onnx.ModelProto, file: Path) -> None:
    """Save a graph whose weights are loaded, and them in `NAME.data` beside it."""
    onnx.save(model, file, save_as_external_data=True, location=f"{file.name}.data")


def read_metadata(file: Path) -> dict[str, str]:
    """Texts of an ONNX file's metadata."""
    return {entry.key: entry.value for entry in onnx.load(file, load_external_data=False).metadata_props}


def _can_import_optimum() -> bool:
    try:
        import optimum.exporters.onnx.convert  # noqa: F401
    except ImportError:  # not installed, or in the way of this transformers
        return False
    return True


def _write_with_optimum(plan: ExportPlan, target: Path, axes: dict[str, dict[int, str]]) -> None:
    from optimum.exporters.onnx.convert import export

    from hf_tasks.export.optimum_config import PlanOnnxConfig, config_with_past

    shapes = None
    config = PlanOnnxConfig(plan, axes)
    if plan.optimum_task.endswith(WITH_PAST):
        config = config_with_past(plan)
        # Half of the example's tokens are past: both have to fit into the model's positions.
        batch, length = plan.inputs["input_ids"].shape
        shapes = {"batch_size": batch, "sequence_length": length // 2}
    export(
        plan.model,
        config,
        target,
        opset=OPSET,
        device="cpu",
        input_shapes=shapes,
        disable_dynamic_axes_fix=True,
    )


def _write_with_torch(plan: ExportPlan, target: Path, axes: dict[str, dict[int, str]]) -> None:
    module = exported_module(plan)
    shapes = tuple(
        {axis: Dim(name, min=1) if name == "batch" else Dim.AUTO for axis, name in axes[input_name].items()}
        for input_name in plan.inputs
    )
    program = torch.onnx.export(
        module,
        tuple(plan.inputs.values()),
        input_names=list(plan.inputs),
        output_names=[plan.output],
        dynamic_shapes=(shapes,),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # it is with dynamo
    _free_name(program.model.graph, plan.output)
    program.save(str(target))


def _free_name(graph: Any, name: str) -> None:
    """Rename the inner value called as an output; torch.onnx names such values after operators."""
    for node in graph.all_nodes():
        for value in node.outputs:
            if value.name == name and not value.is_graph_output():
                value.name = f"{name}_inside"
