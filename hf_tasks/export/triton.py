"""Model repositories for Triton Inference Server, from files that were proved before."""

import filecmp
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from hf_tasks.contract.exports import ExportPlan
from hf_tasks.export.parity import parts_of
from hf_tasks.export.torchscript import TorchScriptNetwork

if TYPE_CHECKING:
    from onnxruntime import NodeArg

NOT_SERVED = ("torchao-int8",)
MAX_BATCH = 32
QUEUE_MICROSECONDS = 100
ONNX_TYPES = {
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(double)": "TYPE_FP64",
    "tensor(int64)": "TYPE_INT64",
    "tensor(int32)": "TYPE_INT32",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(bool)": "TYPE_BOOL",
}
TORCH_TYPES = {
    torch.float32: "TYPE_FP32",
    torch.float16: "TYPE_FP16",
    torch.float64: "TYPE_FP64",
    torch.int64: "TYPE_INT64",
    torch.int32: "TYPE_INT32",
    torch.uint8: "TYPE_UINT8",
    torch.bool: "TYPE_BOOL",
}


@dataclass(frozen=True)
class Port:
    """An input or output as Triton's configuration describes it."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    """Without the batch; -1 is any size."""


@dataclass(frozen=True)
class Signature:
    """What a file takes and gives, and which backend runs it."""

    backend: str
    file_name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def write_model(repository: Path, name: str, source: Path, plan: ExportPlan) -> Path:
    """Put one file into a model repository: config.pbtxt, labels.txt, 1/model.onnx or 1/model.pt.

    Args:
        repository: folder of all models, as Triton's --model-repository.
        name: of the model; characters other than letters, digits, - and _ become _.
        source: an exported .onnx or .pt file, its first axis the batch.
        plan: gives labels, and example inputs for what a TorchScript file does not say of itself.

    Returns:
        The folder of the model.
    """
    name = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    signature = onnx_signature(source) if source.suffix == ".onnx" else torchscript_signature(source, plan)
    folder = repository / name
    version = folder / "1"
    version.mkdir(parents=True, exist_ok=True)
    for part in parts_of(source):  # a graph names the weights beside it by their file
        shutil.copyfile(part, version / _name_of(part, source, signature))
    (folder / "config.pbtxt").write_text(config_text(name, signature, has_labels=bool(plan.labels)), "utf-8")
    if plan.labels:
        # Triton reads a label a line.
        lines = [" ".join(label.splitlines()) for label in plan.labels]
        (folder / "labels.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def why_refused(folder: Path, source: Path, plan: ExportPlan) -> str | None:
    """What is wrong with a model's folder: its file must be the proved one, its ports those of that file."""
    signature = onnx_signature(source) if source.suffix == ".onnx" else torchscript_signature(source, plan)
    for part in parts_of(source):
        name = _name_of(part, source, signature)
        if not filecmp.cmp(part, folder / "1" / name, shallow=False):
            return f"1/{name} is not the file that was proved"
    written = (folder / "config.pbtxt").read_text("utf-8")
    if written != config_text(folder.name, signature, has_labels=bool(plan.labels)):
        return "config.pbtxt does not describe the file that was proved"
    return None


def config_text(name: str, signature: Signature, *, has_labels: bool) -> str:
    """The text of config.pbtxt: free batch up to 32, collected from requests that wait 0.1 ms at most.

    Source: message ModelConfig in triton-inference-server/common, protobuf/model_config.proto.
    """
    outputs = [
        _port(port, label_file="labels.txt" if has_labels and position == 0 else None)
        for position, port in enumerate(signature.outputs)
    ]
    return "\n".join(
        [
            f'name: "{name}"',
            f'backend: "{signature.backend}"',
            f'default_model_filename: "{signature.file_name}"',
            f"max_batch_size: {MAX_BATCH}",
            f"input [{_joined([_port(port) for port in signature.inputs])}]",
            f"output [{_joined(outputs)}]",
            f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_MICROSECONDS} }}",
            "instance_group [ { count: 1 kind: KIND_AUTO } ]",
            "",
        ]
    )


def onnx_signature(file: Path) -> Signature:
    """Ports of an ONNX file, by its own words."""
    from hf_tasks.export.onnx_network import OnnxNetwork

    session = OnnxNetwork(file).session
    ports = [tuple(map(_onnx_port, items)) for items in (session.get_inputs(), session.get_outputs())]
    return Signature("onnxruntime", "model.onnx", *ports)


def torchscript_signature(file: Path, plan: ExportPlan) -> Signature:
    """Ports of a TorchScript file, found by running it; names end in __0, __1, as Triton's backend wants."""
    network = TorchScriptNetwork(file)
    examples, inputs, names = _examples(network.names, plan)
    with torch.inference_mode():
        found = network.module(*examples)
    outputs = found if isinstance(found, tuple) else (found,)
    given = tuple(
        Port(f"{name}__{position}", TORCH_TYPES[output.dtype], tuple(output.shape[1:]))
        for position, (name, output) in enumerate(zip(names, outputs, strict=False))
    )
    return Signature("pytorch", "model.pt", inputs, given)


def _name_of(part: Path, source: Path, signature: Signature) -> str:
    return signature.file_name if part == source else part.name


def _onnx_port(item: "NodeArg") -> Port:
    dims = tuple(size if isinstance(size, int) else -1 for size in item.shape[1:])
    return Port(item.name, ONNX_TYPES[item.type], dims)


def _examples(
    names: Sequence[str], plan: ExportPlan
) -> tuple[tuple[torch.Tensor, ...], tuple[Port, ...], tuple[str, ...]]:
    """Inputs to run a file with, their ports, and the names of its outputs."""
    if plan.pictures is not None and list(names) == ["pictures"]:
        picture = torch.from_numpy(np.zeros((1, 48, 64, 3), np.uint8))
        return (
            (picture,),
            (Port("pictures__0", "TYPE_UINT8", (-1, -1, 3)),),
            (plan.pictures.answer, "decisions"),
        )
    examples = tuple(plan.inputs[name] for name in names)
    ports = tuple(
        Port(f"{name}__{position}", TORCH_TYPES[example.dtype], _dims(example, plan.axes.get(name, {})))
        for position, (name, example) in enumerate(zip(names, examples, strict=True))
    )
    return examples, ports, (plan.output,)


def _dims(example: torch.Tensor, axes: Mapping[int, str]) -> tuple[int, ...]:
    return tuple(-1 if axis in axes else size for axis, size in enumerate(example.shape) if axis > 0)


def _port(port: Port, *, label_file: str | None = None) -> str:
    label = f' label_filename: "{label_file}"' if label_file else ""
    dims = ", ".join(str(size) for size in port.dims)
    return f'  {{ name: "{port.name}" data_type: {port.data_type} dims: [ {dims} ]{label} }}'


def _joined(ports: Sequence[str]) -> str:
    return "\n" + ",\n".join(ports) + "\n"
