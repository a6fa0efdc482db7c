"""The validation transform of timm in numbers, for graphs that carry it inside."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from hf_tasks.contract.exports import PictureSteps


def picture_steps(data_config: Mapping[str, Any]) -> PictureSteps:
    """What timm's validation transform does with a picture.

    Args:
        data_config: of an image processor: input_size, crop_pct, crop_mode, interpolation, mean, std.

    Source: timm.data.transforms_factory.transforms_imagenet_eval.
    """
    height, width = data_config["input_size"][-2:]
    share = data_config["crop_pct"]
    resize = (math.floor(height / share), math.floor(width / share))
    return PictureSteps(
        fit=_fit(data_config.get("crop_mode"), resize),
        resize=resize,
        crop=(height, width),
        interpolation=data_config["interpolation"],
        mean=tuple(data_config["mean"]),
        std=tuple(data_config["std"]),
    )


def _fit(
    crop_mode: str | None, resize: tuple[int, int]
) -> Literal["shorter-side", "cover", "contain", "squash"]:
    if crop_mode == "squash":
        return "squash"
    if crop_mode == "border":
        return "contain"
    return "shorter-side" if resize[0] == resize[1] else "cover"
