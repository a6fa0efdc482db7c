"""Exported files as contract.Network, by their ending; and the formats a run can answer with."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from hf_tasks.contract.exports import Network
from hf_tasks.errors import ExportError
from hf_tasks.export.parity import PARITY, read_records, sha256_of

PLAIN_FILES = {
    "onnx": "model.onnx",
    "onnx-fp16": "model.onnx",
    "onnx-int8": "model.onnx",
    "torchscript": "model.pt",
    "torchao-int8": "model.safetensors",
}


def open_network(file: Path, build_model: Callable[[], nn.Module] | None = None) -> Network:
    """A file in its runtime, on the CPU; the libraries of other formats are not imported.

    Args:
        file: of any format.
        build_model: gives the module whose tensors a .safetensors file holds; other files are whole.
    """
    if file.suffix == ".onnx":
        from hf_tasks.export.onnx_network import OnnxNetwork
        from hf_tasks.export.past import OnnxNetworkWithPast, has_past

        network = OnnxNetwork(file)
        return OnnxNetworkWithPast(file, network.session) if has_past(network) else network
    if file.suffix == ".safetensors":
        from hf_tasks.export.torchao import TorchaoNetwork

        assert build_model is not None
        return TorchaoNetwork(file, build_model())
    from hf_tasks.export.torchscript import TorchScriptNetwork

    return TorchScriptNetwork(file)


def open_export(folder: Path, format_name: str, build_model: Callable[[], nn.Module]) -> Network:
    """The proved plain network of a format.

    Args:
        folder: `export` of a run.
        format_name: onnx, onnx-fp16, onnx-int8, torchscript or torchao-int8.
        build_model: for open_network.

    Raises:
        ExportError: no such format, or the run has no file of it that is the one of its proof.
    """
    if format_name not in PLAIN_FILES:
        raise ExportError(f"--with: no format '{format_name}'; wanted one of {', '.join(PLAIN_FILES)}")
    file = folder / format_name / PLAIN_FILES[format_name]
    if file.is_file():
        _require_proof(file, format_name, folder)
        return open_network(file, build_model)
    rejected = folder / "rejected" / format_name / PLAIN_FILES[format_name]
    if rejected.is_file():
        raise ExportError(f"--with: {format_name} was refused by its proof; see {folder}/parity.json")
    raise ExportError(f"--with: no {file}; make it with `hf-tasks export {folder.parent} {format_name}`")


def _require_proof(file: Path, format_name: str, folder: Path) -> None:
    """Check that parity.json calls this very file good: what it says of another one is worth nothing."""
    records = read_records(folder / PARITY)
    record = next((record for record in records if record["format"] == format_name), None)
    anew = f"make it anew with `hf-tasks export {folder.parent} {format_name}`"
    if record is None or "sha256" not in record:
        raise ExportError(f"--with: {folder / PARITY} holds no proof of {file}; {anew}")
    if not record["passed"]:
        raise ExportError(f"--with: {format_name} was refused by its proof; see {folder / PARITY}")
    if record["sha256"] != sha256_of(file):
        raise ExportError(f"--with: {file} is not the file that was proved, it was changed since; {anew}")
