"""An ONNX file run by onnxruntime, as a contract.Network."""

from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NotImplemented,
    RuntimeException,
)

from hf_tasks.contract.exports import Arrays
from hf_tasks.errors import ExportError

# onnxruntime's errors have no common base below Exception.
BROKEN = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NotImplemented, RuntimeException)


class OnnxNetwork:
    """A session on the CPU; of several outputs the first."""

    def __init__(self, file: Path) -> None:
        """Load the file.

        Raises:
            ExportError: onnxruntime does not take it.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.file = file
        try:
            self.session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except BROKEN as error:
            raise ExportError(f"{file}: onnxruntime cannot run it: {error}") from error
        self.names = [item.name for item in self.session.get_inputs()]
        self.output = self.session.get_outputs()[0].name

    def __call__(self, inputs: Arrays) -> np.ndarray:
        """The output for a batch.

        Raises:
            ExportError: the file does not run on these inputs.
        """
        chosen = {name: inputs[name] for name in self.names}
        try:
            found: np.ndarray = self.session.run([self.output], chosen)[0]
        except BROKEN as error:
            shapes = {name: value.shape for name, value in chosen.items()}
            raise ExportError(f"{self.file}: does not run on inputs of {shapes}: {error}") from error
        return found
