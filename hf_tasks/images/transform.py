"""Pixels to the network's input: random for training by (seed, epoch, index) alone, fixed for validation."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import albumentations
import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hf_tasks.errors import UserError
from hf_tasks.images.augmentation import NONE, Augmentation, load_augmentation
from hf_tasks.images.decode import load_rgb, load_rgb_fast

# Worker processes share the cores already, and OpenCV's threads do not survive a fork.
cv2.setNumThreads(0)

WIDEST_STRETCH = 4 / 3  # of a random crop's sides against the network's input, either way

# timm's names; others, such as its 'random', become linear.
INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}


class TrainTransform:
    """Random crop and augmentation, decided by (seed, epoch, index) in any process; then normalisation.

    The first gives bytes, a quarter of what the network's input takes: that is what workers hand over, and
    what goes to the device, where `normalise` makes the input of it.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        *,
        seed: int,
        image_size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        interpolation: str = "bicubic",
    ) -> None:
        """Keep the transforms and what they depend on.

        Args:
            augmentation: what load_augmentation returned.
            seed: the run's seed, >= 0.
            image_size: (height, width) of the network's input, pixels.
            mean: of red, green, blue, as shares of 255.
            std: likewise, > 0.
            interpolation: nearest, bilinear, bicubic or lanczos; shrinking to less than half averages areas.
        """
        self.seed = seed
        self.image_size = image_size
        self.crop_scale = augmentation.crop_scale
        self.interpolation = INTERPOLATIONS.get(interpolation, cv2.INTER_LINEAR)
        self._augment = albumentations.Compose(list(augmentation.transforms))
        std_C11 = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)
        self._factor_C11 = 1 / (255 * std_C11)
        self._shift_C11 = -torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1) / std_C11

    @property
    def shorter_side(self) -> int:
        """Pixels that a decoded picture's shorter side needs, so that the smallest crop is not enlarged."""
        return math.ceil(max(self.image_size) / math.sqrt(self.crop_scale[0]))

    @property
    def decoding(self) -> str:
        """What decides how a picture is decoded, besides the picture."""
        return f"shorter side at least {self.shorter_side}"

    def decode(self, image: Mapping[str, Any]) -> np.ndarray:
        """A row's picture as it is before all that is random: whole, no smaller than the crops need it.

        Raises:
            DataError: the picture is not readable.
        """
        return load_rgb_fast(image, shorter_side=self.shorter_side)

    def __call__(self, pixels_HWC: np.ndarray, *, epoch: int, index: int) -> Tensor:
        """Turn a decoded picture into a training example.

        Args:
            pixels_HWC: uint8, RGB.
            epoch: counted from 0.
            index: row of the picture.

        Returns:
            uint8 of shape (3, height, width), for `normalise`.

        Raises:
            UserError: the augmentation changed the size of the picture.
        """
        seeds = np.random.SeedSequence((self.seed, epoch, index))
        generator = np.random.Generator(np.random.PCG64(seeds))
        crop_HWC = self._resize(
            random_crop(pixels_HWC, generator, crop_scale=self.crop_scale, image_size=self.image_size)
        )
        self._augment.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        augmented_HWC = self._augment(image=crop_HWC)["image"]
        if augmented_HWC.shape != crop_HWC.shape:
            raise UserError(
                f"augmentation: made a picture of (height, width) {augmented_HWC.shape[:2]}, "
                f"wanted {self.image_size}; take RandomRotate90, D4 and their like out, or use a square size"
            )
        return torch.from_numpy(augmented_HWC).permute(2, 0, 1).contiguous()

    def normalise(self, pixels_BCHW: Tensor) -> Tensor:
        """The network's input, float32, for a batch of pictures, on their device."""
        # Without waiting for the device, which still computes the step before.
        factor_C11, shift_C11 = (
            each.to(pixels_BCHW.device, non_blocking=True) for each in (self._factor_C11, self._shift_C11)
        )
        return pixels_BCHW.float().mul_(factor_C11).add_(shift_C11)

    def _resize(self, crop_HWC: np.ndarray) -> np.ndarray:
        height, width = self.image_size
        shrinks = crop_HWC.shape[0] >= 2 * height and crop_HWC.shape[1] >= 2 * width
        interpolation = cv2.INTER_AREA if shrinks else self.interpolation
        return cv2.resize(crop_HWC, (width, height), interpolation=interpolation)


class ValidationTransform:
    """The fixed transform: the image processor that is saved beside the model, and nothing else."""

    def __init__(self, image_processor: Any) -> None:
        """Keep the processor.

        Args:
            image_processor: a TimmWrapperImageProcessor, or another that maps a picture to pixel_values.
        """
        self.image_processor = image_processor

    def __call__(self, image: Image.Image) -> Tensor:
        """The network's input for what load_rgb decoded: float32, (3, height, width), normalised."""
        pixel_values_CHW: Tensor = self.image_processor(image)["pixel_values"][0]
        return pixel_values_CHW

    @property
    def decoding(self) -> str:
        """What decides how a picture is decoded, besides the picture."""
        return "\n".join(map(repr, self._steps()[0]))

    def decode(self, image: Mapping[str, Any]) -> np.ndarray:
        """A row's picture resized and cropped as the processor does it, uint8 (height, width, 3).

        Raises:
            DataError: the picture is not readable.
        """
        picture = load_rgb(image)
        for step in self._steps()[0]:
            picture = step(picture)
        return np.asarray(picture)

    def finish(self, pixels_HWC: np.ndarray) -> Tensor:
        """What the processor does after that; both together give what a call gives, bit for bit."""
        values: Any = Image.fromarray(pixels_HWC)
        for step in self._steps()[1]:
            values = step(values)
        return values

    def _steps(self) -> tuple[list[Any], list[Any]]:
        """The processor's steps on pictures, and those from the first that makes a tensor on."""
        steps = list(self.image_processor.val_transforms.transforms)
        first = next(place for place, step in enumerate(steps) if type(step).__name__.endswith("ToTensor"))
        return steps[:first], steps[first:]


def build_train_transform(
    augmentation: str, image_processor: Any, *, seed: int
) -> TrainTransform | ValidationTransform:
    """The transform of training pictures; with the augmentation `none` it is the one of validation.

    Args:
        augmentation: none, light, medium, hard, or the path of a YAML file.
        image_processor: a TimmWrapperImageProcessor; its data_config gives size, mean, std and interpolation.
        seed: the run's seed, >= 0.

    Raises:
        RecipeError: no such augmentation, or mistakes in its file.
    """
    if augmentation == NONE:
        return ValidationTransform(image_processor)
    config = image_processor.data_config
    height, width = config["input_size"][-2:]
    return TrainTransform(
        load_augmentation(augmentation),
        seed=seed,
        image_size=(height, width),
        mean=config["mean"],
        std=config["std"],
        interpolation=config["interpolation"],
    )


def random_crop(
    pixels_HWC: np.ndarray,
    generator: np.random.Generator,
    *,
    crop_scale: tuple[float, float],
    image_size: tuple[int, int],
) -> np.ndarray:
    """Cut out a rectangle of random area, shape and place; a view of the pixels.

    The shape, width / height, stays within WIDEST_STRETCH of the network's input where such a rectangle of
    the drawn area fits into the picture, and comes as near to it as fits where not: nothing is redrawn.

    Args:
        pixels_HWC: the picture, at least one pixel.
        generator: four numbers are drawn.
        crop_scale: smallest and largest share of the area, in (0, 1], kept to within a pixel a side.
        image_size: (height, width) of the network's input, pixels.
    """
    height, width = pixels_HWC.shape[:2]
    share = generator.uniform(*crop_scale)
    aspect = image_size[1] / image_size[0]
    narrowest, widest = share * width / height, width / height / share
    low, high = np.clip([aspect / WIDEST_STRETCH, aspect * WIDEST_STRETCH], narrowest, widest)
    shape = math.exp(generator.uniform(math.log(low), math.log(high)))
    area = share * height * width
    crop_height = min(height, max(1, round(math.sqrt(area / shape))))
    crop_width = min(width, max(1, round(math.sqrt(area * shape))))
    top = int(generator.integers(height - crop_height + 1))
    left = int(generator.integers(width - crop_width + 1))
    return pixels_HWC[top : top + crop_height, left : left + crop_width]
