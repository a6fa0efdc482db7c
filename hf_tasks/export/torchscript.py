"""TorchScript files of a plan's network, and of the whole way around it."""

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hf_tasks.contract.exports import Arrays, ExportPlan, Pictures
from hf_tasks.errors import ExportError
from hf_tasks.export.end_to_end_torch import end_to_end
from hf_tasks.export.network import exported_module

METADATA = "metadata.json"
TRACE_TOLERANCE = 1e-4


def write_torchscript(plan: ExportPlan, target: Path, *, metadata: dict[str, str]) -> torch.jit.ScriptModule:
    """Trace the network with a batch of two, check the trace, freeze it and save it.

    Args:
        plan: what is exported.
        target: the file to write; `metadata.json` inside it holds the metadata and the input names.
        metadata: texts.

    Raises:
        ExportError: the network cannot be traced, or its trace answers differently.
    """
    traced, frozen = trace(plan)
    _save(frozen, target, {**metadata, "inputs": json.dumps(list(plan.inputs))})
    return traced  # a frozen module cannot become part of another


def trace(plan: ExportPlan) -> tuple[torch.jit.ScriptModule, torch.jit.ScriptModule]:
    """The network as a batch of two goes through it, checked with the same batch; and the same frozen.

    Raises:
        ExportError: the network cannot be traced, or its trace answers differently.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            examples = tuple(plan.inputs.values())
            module = exported_module(plan)
            traced = torch.jit.trace(module, examples, check_trace=True, check_tolerance=TRACE_TOLERANCE)
            return traced, torch.jit.freeze(traced)
    except (RuntimeError, ValueError, TypeError, torch.jit.TracingCheckError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(
            f"export: this model cannot be traced for TorchScript: {reason[0]}; "
            "leave torchscript out, or take onnx"
        ) from error


def write_end_to_end_torchscript(
    network: nn.Module, pictures: Pictures, target: Path, *, metadata: dict[str, str]
) -> None:
    """Script the way from pixels to answers around a traced network.

    Raises:
        ExportError: the preparation has no counterpart in PyTorch.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.freeze(torch.jit.script(end_to_end(network, pictures)))
    _save(scripted, target, {**metadata, "inputs": json.dumps(["pictures"])})


def _save(module: torch.jit.ScriptModule, target: Path, metadata: dict[str, str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    texts = {METADATA: json.dumps(metadata, ensure_ascii=False)}
    # Through Python's own file: PyTorch's aborts the process when the disk is full.
    with warnings.catch_warnings(), target.open("wb") as file:
        warnings.simplefilter("ignore")
        torch.jit.save(module, file, _extra_files=texts)


class TorchScriptNetwork:
    """A TorchScript file as a contract.Network; of several outputs the first."""

    def __init__(self, file: Path) -> None:
        """Load the file, on the CPU.

        Raises:
            ExportError: PyTorch does not take it, or it is not one of ours.
        """
        self.file = file
        extra = {METADATA: ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.module = torch.jit.load(str(file), map_location="cpu", _extra_files=extra).eval()
            self.metadata: dict[str, str] = json.loads(extra[METADATA])
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"{file}: PyTorch cannot load it: {str(error).splitlines()[0]}") from error
        self.names: list[str] = json.loads(self.metadata["inputs"])

    def __call__(self, inputs: Arrays) -> np.ndarray:
        """The output for a batch.

        Raises:
            ExportError: the file does not run on these inputs.
        """
        try:
            with torch.inference_mode():
                found = self.module(*(torch.from_numpy(inputs[name]) for name in self.names))
        except RuntimeError as error:
            shapes = {name: inputs[name].shape for name in self.names}
            raise ExportError(f"{self.file}: does not run on inputs of {shapes}: {error}") from error
        return (found[0] if isinstance(found, tuple) else found).numpy()
