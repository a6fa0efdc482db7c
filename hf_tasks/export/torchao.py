"""Quantised PyTorch through torchao: linear layers with weights of 8 bits, as one safetensors file.

A file of torch.export would carry the graph as well, but PyTorch falls back to pickle when it loads one; so
the file holds tensors alone, and the module that they belong to is built first.
"""

import copy
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from hf_tasks.contract.exports import Arrays, ExportPlan
from hf_tasks.errors import ExportError
from hf_tasks.export.network import OutputOnly, exported_module

INPUTS, OUTPUT, LAYOUT = "inputs", "output", "torchao"


def require_torchao() -> None:
    """Check that torchao is here and runs on this PyTorch.

    Raises:
        ExportError: it is missing, or does not.
    """
    if find_spec("torchao") is None:
        raise ExportError(
            "export: torchao-int8 needs the package torchao; install it with pip install 'hf_tasks[torchao]'"
        )
    try:
        import torchao.prototype.safetensors.safetensors_support  # noqa: F401
        from torchao.quantization import Int8WeightOnlyConfig  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"export: this torchao does not run on torch {torch.__version__}: {error}; "
            "install one that does with pip install -U torchao"
        ) from error


def write_torchao(plan: ExportPlan, target: Path, *, metadata: dict[str, str]) -> None:
    """Quantise the weights of every linear layer, a scale a row, and save all tensors.

    Activations stay float32: with whole numbers for them too, PyTorch took ten times as long as without on a
    CPU that has no instruction for it.

    Raises:
        ExportError: the model has no linear layers.
    """
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    module = copy.deepcopy(exported_module(plan))
    if not any(isinstance(part, nn.Linear) for part in module.modules()):
        raise ExportError("export: torchao-int8 quantises linear layers, and this model has none")
    quantize_(module, Int8WeightOnlyConfig())
    tensors, layout = flatten_tensor_state_dict(dict(module.state_dict()))
    texts = {INPUTS: json.dumps(list(plan.inputs)), OUTPUT: plan.output, LAYOUT: json.dumps(layout)}
    # Weights that two layers share are written twice, as safetensors wants.
    separate = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    target.write_bytes(save(separate, metadata={**metadata, **texts}))


class TorchaoNetwork:
    """A file of write_torchao as a contract.Network, on the CPU."""

    def __init__(self, file: Path, model: nn.Module) -> None:
        """Put the file's tensors into a module.

        Args:
            file: what write_torchao wrote.
            model: of the plan that was exported, with any weights; it is not changed.

        Raises:
            ExportError: torchao is missing, the file is damaged, or its tensors are not those of the model.
        """
        require_torchao()
        from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict

        try:
            with safe_open(file, framework="pt") as opened:
                self.metadata: dict[str, str] = opened.metadata() or {}
        except SafetensorError as error:
            raise ExportError(f"{file}: safetensors cannot read it: {error}") from error
        if not {INPUTS, OUTPUT, LAYOUT} <= set(self.metadata):
            raise ExportError(f"{file}: found plain tensors, wanted a file of torchao-int8")
        self.names: list[str] = json.loads(self.metadata[INPUTS])
        tensors, _ = unflatten_tensor_state_dict(load_file(file), json.loads(self.metadata[LAYOUT]))
        self.module = OutputOnly(copy.deepcopy(model), tuple(self.names), self.metadata[OUTPUT]).eval()
        try:
            self.module.load_state_dict(tensors, assign=True)
        except RuntimeError as error:
            raise ExportError(f"{file}: does not fit the model: {error}") from error

    def __call__(self, inputs: Arrays) -> np.ndarray:
        """The output for a batch."""
        with torch.inference_mode():
            return self.module(*(torch.from_numpy(inputs[name]) for name in self.names)).numpy()
