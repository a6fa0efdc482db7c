"""Causal language models as ONNX files that take and give the keys and values of the tokens read before.

Legend of axes: B batch, S tokens, V vocabulary.
"""

from pathlib import Path

import numpy as np
import onnxruntime

from hf_tasks.contract.exports import Arrays
from hf_tasks.errors import ExportError
from hf_tasks.export.onnx_network import BROKEN, OnnxNetwork

PAST, PRESENT = "past_key_values", "present"
LOGITS = "logits"
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def has_past(network: OnnxNetwork) -> bool:
    """Whether a file has inputs for keys and values."""
    return any(name.startswith(PAST) for name in network.names)


class OnnxNetworkWithPast:
    """A file with Optimum's names of inputs and outputs, as a contract.NetworkWithPast, on the CPU."""

    def __init__(self, file: Path, session: onnxruntime.InferenceSession) -> None:
        """Keep the session of a file."""
        self.file = file
        self.session = session
        inputs = session.get_inputs()
        self._takes_positions = any(item.name == "position_ids" for item in inputs)
        self._past_ports = [item for item in inputs if item.name.startswith(PAST)]
        self._outputs = [LOGITS, *(item.name.replace(PAST, PRESENT) for item in self._past_ports)]
        self._past: dict[str, np.ndarray] = {}
        self._past_tokens = 0

    @property
    def past_tokens(self) -> int:
        """How many tokens it has read, since the last call that started anew."""
        return self._past_tokens

    def __call__(self, inputs: Arrays) -> np.ndarray:
        """Logits (B, S, V) of `input_ids` (B, S), which go on after the past where the mask is longer.

        Raises:
            ExportError: the file does not run on these inputs.
        """
        input_ids_BS, mask = inputs["input_ids"], inputs["attention_mask"]
        batch, length = input_ids_BS.shape
        if mask.shape[1] == length:
            self._past, self._past_tokens = self._nothing_read(batch), 0
        assert mask.shape[1] == self._past_tokens + length
        fed = {"input_ids": input_ids_BS, "attention_mask": mask, **self._past}
        if self._takes_positions:
            positions_S = np.arange(self._past_tokens, self._past_tokens + length)
            fed["position_ids"] = np.tile(positions_S, (batch, 1))
        try:
            logits_BSV, *present = self.session.run(self._outputs, fed)
        except BROKEN as error:
            raise ExportError(
                f"{self.file}: does not run on {length} tokens after {self._past_tokens}: {error}"
            ) from error
        self._past = {port.name: value for port, value in zip(self._past_ports, present, strict=True)}
        self._past_tokens += length
        return logits_BSV

    def _nothing_read(self, batch: int) -> dict[str, np.ndarray]:
        """Keys and values of no tokens."""
        return {
            port.name: np.zeros((batch, port.shape[1], 0, port.shape[3]), TYPES[port.type])
            for port in self._past_ports
        }
