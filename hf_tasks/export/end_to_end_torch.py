"""The TorchScript module around a network: from uint8 pixels of any size to probabilities and decisions."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hf_tasks.contract.exports import Pictures, PictureSteps
from hf_tasks.errors import ExportError

ANTIALIASED = ("bilinear", "bicubic")


class Preparation(nn.Module):
    """Resize, crop and normalise as the validation transform does; it can be scripted.

    Pillow resizes the columns first and the rows after, and rounds to whole levels in between; so does this.
    """

    mean: Tensor
    spread: Tensor
    fill: Tensor

    def __init__(self, steps: PictureSteps) -> None:
        """Keep the steps.

        Raises:
            ExportError: the interpolation has no counterpart in PyTorch.
        """
        super().__init__()
        if steps.interpolation not in (*ANTIALIASED, "nearest"):
            raise ExportError(
                f"export: {steps.interpolation} interpolation cannot be put into a graph; wanted bilinear, "
                "bicubic or nearest; train with another in the model's configuration"
            )
        self.fit = steps.fit
        self.antialias = steps.interpolation in ANTIALIASED
        self.mode = steps.interpolation if self.antialias else "nearest-exact"
        self.resize_height, self.resize_width = steps.resize
        self.crop_height, self.crop_width = steps.crop
        mean = 255 * torch.tensor(steps.mean).view(1, 3, 1, 1)
        self.register_buffer("mean", mean)
        self.register_buffer("spread", 255 * torch.tensor(steps.std).view(1, 3, 1, 1))
        self.register_buffer("fill", mean.round())

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures, uint8 (batch, height, width, 3), to the network's input, float32 (batch, 3, h, w)."""
        levels = pictures.permute(0, 3, 1, 2).float()
        height, width = self.target(pictures.shape[1], pictures.shape[2])
        levels = self.scale(self.scale(levels, levels.shape[2], width), height, width)
        down, across = max(self.crop_height - height, 0), max(self.crop_width - width, 0)
        if down > 0 or across > 0:
            borders = [across // 2, across - across // 2, down // 2, down - down // 2]
            levels = functional.pad(levels - self.fill, borders) + self.fill
        top = self.start(levels.shape[2] - self.crop_height)
        left = self.start(levels.shape[3] - self.crop_width)
        cropped = levels[:, :, top : top + self.crop_height, left : left + self.crop_width]
        return (cropped - self.mean) / self.spread

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Size after resizing, pixels."""
        if self.fit == "squash":
            return self.resize_height, self.resize_width
        if self.fit == "shorter-side":
            shorter = min(height, width)
            return height * self.resize_height // shorter, width * self.resize_width // shorter
        rows, columns = height / self.resize_height, width / self.resize_width
        ratio = max(rows, columns) if self.fit == "contain" else min(rows, columns)
        return int(round(height / ratio)), int(round(width / ratio))  # noqa: RUF046 - a float in TorchScript

    def scale(self, levels: Tensor, height: int, width: int) -> Tensor:
        """Resized and rounded to whole levels."""
        if self.antialias:
            exact = functional.interpolate(
                levels, [height, width], mode=self.mode, align_corners=False, antialias=True
            )
        else:
            exact = functional.interpolate(levels, [height, width], mode=self.mode)
        return (exact + 0.5).floor().clamp(0.0, 255.0)

    def start(self, spare: int) -> int:
        """Where the centre begins; half a pixel goes to the even side, as Python rounds."""
        return (spare + spare // 2 % 2) // 2


class EndToEnd(nn.Module):
    """Preparation, network and answers in one; classes exclude each other, or there are no decisions."""

    def __init__(self, network: nn.Module, pictures: Pictures) -> None:
        """Keep the parts.

        Args:
            network: from prepared pixels to outputs, traced.
            pictures: what happens before and after it.
        """
        super().__init__()
        self.prepare = Preparation(pictures.steps)
        self.network = network
        self.activation = pictures.activation
        self.temperature = pictures.temperature

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures, uint8 (batch, height, width, 3), to probabilities (batch, classes)."""
        outputs = self.network(self.prepare(pictures)) / self.temperature
        if self.activation == "softmax":
            return outputs.softmax(-1)
        return outputs.sigmoid() if self.activation == "sigmoid" else outputs


class EndToEndDecisions(nn.Module):
    """The same with thresholds: probabilities and decisions."""

    def __init__(self, network: nn.Module, pictures: Pictures) -> None:
        """Keep the parts; the pictures must have thresholds."""
        super().__init__()
        self.probabilities = EndToEnd(network, pictures)
        self.register_buffer("thresholds", torch.tensor(pictures.thresholds))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures to probabilities and decisions, int64 0 and 1, both (batch, classes)."""
        probabilities = self.probabilities(pictures)
        return probabilities, (probabilities >= self.thresholds).long()


def end_to_end(network: nn.Module, pictures: Pictures) -> nn.Module:
    """The module from pixels to answers; to be scripted."""
    module = EndToEnd if pictures.thresholds is None else EndToEndDecisions
    return module(network, pictures).eval()
