"""The module that is exported: inputs in their order, one tensor out; and how networks are read beside it."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from hf_tasks.contract.exports import Arrays, ExportPlan, NetworkWithPast


class OutputOnly(nn.Module):
    """A model with its named output as the only one, and its inputs by position."""

    def __init__(self, model: nn.Module, input_names: tuple[str, ...], output: str) -> None:
        """Keep the model.

        Args:
            model: called with the inputs by name; returns a tensor, a mapping or a dataclass.
            input_names: in the order of the positions.
            output: item or field that is kept.
        """
        super().__init__()
        self.model = model
        self.input_names = input_names
        self.output = output

    def forward(self, *inputs: Tensor) -> Tensor:
        """The output for a batch."""
        found = self.model(**dict(zip(self.input_names, inputs, strict=True)))
        if isinstance(found, Tensor):
            return found
        return found[self.output] if isinstance(found, Mapping) else getattr(found, self.output)


def exported_module(plan: ExportPlan) -> OutputOnly:
    """The plan's model, in evaluation mode, as it is exported."""
    return OutputOnly(plan.model, tuple(plan.inputs), plan.output).eval()


def free_axes(plan: ExportPlan, *, has_free_size: bool) -> dict[str, dict[int, str]]:
    """Names of the free axes of every input and of the output."""
    names = (*plan.inputs, plan.output)
    further = plan.size_axes if has_free_size else {}
    return {name: {**plan.axes.get(name, {}), **further.get(name, {})} for name in names}


class TorchNetwork:
    """The plan's own model as a contract.Network: what every export is compared with."""

    def __init__(self, plan: ExportPlan) -> None:
        """Keep the module; its weights are shared, not copied."""
        self.module = exported_module(plan)
        self.names = tuple(plan.inputs)

    def __call__(self, inputs: Arrays) -> np.ndarray:
        """The output for a batch."""
        with torch.inference_mode():
            return self.module(*(torch.from_numpy(inputs[name]) for name in self.names)).numpy()


class ReadInTwoParts:
    """A network that reads half of its tokens first and goes on with what it kept of them.

    So a comparison of logits is one of the past, too.
    """

    def __init__(self, network: NetworkWithPast) -> None:
        """Keep the network."""
        self.network = network

    def __call__(self, inputs: Arrays) -> np.ndarray:
        """Logits (batch, tokens, vocabulary) of all tokens."""
        half = inputs["input_ids"].shape[1] // 2
        if half == 0:
            return self.network(inputs)
        first_BSV = self.network({name: value[:, :half] for name, value in inputs.items()})
        rest_BSV = self.network({**inputs, "input_ids": inputs["input_ids"][:, half:]})
        return np.concatenate([first_BSV, rest_BSV], axis=1)
