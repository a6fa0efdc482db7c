"""The albumentations transforms that an augmentation file may name: looked up, built, and tried on noise."""

import difflib
import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import albumentations
import cv2
import numpy as np
import pydantic

from hf_tasks.errors import RecipeError

# What works on one uint8 picture and keeps its size and type; nothing here reads files or takes functions.
# fmt: off
TRANSFORMS = (
    "AutoContrast", "CLAHE", "ChannelDropout", "ChannelShuffle", "ChromaticAberration", "ColorJitter",
    "Equalize", "FancyPCA", "HEStain", "HueSaturationValue", "Illumination", "InvertImg", "PlanckianJitter",
    "PlasmaBrightnessContrast", "PlasmaShadow", "Posterize", "RGBShift", "RandomBrightnessContrast",
    "RandomGamma", "RandomToneCurve", "Solarize", "ToGray", "ToSepia",
    "AdvancedBlur", "Blur", "Defocus", "Downscale", "Emboss", "GaussianBlur", "GlassBlur", "ImageCompression",
    "MedianBlur", "MotionBlur", "RingingOvershoot", "Sharpen", "Superpixels", "UnsharpMask", "ZoomBlur",
    "AdditiveNoise", "GaussNoise", "ISONoise", "MultiplicativeNoise", "PixelDropout", "SaltAndPepper",
    "ShotNoise", "RandomFog", "RandomGravel", "RandomRain", "RandomShadow", "RandomSnow", "RandomSunFlare",
    "Spatter",
    "Affine", "CropAndPad", "D4", "ElasticTransform", "GridDistortion", "GridElasticDeform", "HorizontalFlip",
    "Morphological", "NoOp", "OpticalDistortion", "Perspective", "RandomGridShuffle", "RandomRotate90",
    "Rotate", "SafeRotate", "SquareSymmetry", "ThinPlateSpline", "Transpose", "VerticalFlip",
    "CoarseDropout", "Erasing", "GridDropout", "XYMasking",
)
# fmt: on
GROUPS = ("OneOf", "SomeOf", "Sequential")

# OpenCV's numbers, by names that a person can read.
NAMED_VALUES = {
    "border_mode": {
        "constant": cv2.BORDER_CONSTANT,
        "replicate": cv2.BORDER_REPLICATE,
        "reflect": cv2.BORDER_REFLECT,
        "reflect_101": cv2.BORDER_REFLECT_101,
    },
    "interpolation": {
        "nearest": cv2.INTER_NEAREST,
        "linear": cv2.INTER_LINEAR,
        "cubic": cv2.INTER_CUBIC,
        "area": cv2.INTER_AREA,
        "lanczos": cv2.INTER_LANCZOS4,
    },
}

# What constructors and transforms raise on values that they cannot use.
UNUSABLE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, UserWarning, cv2.error)
PROBE_SIDE = 97  # pixels; no transform would choose this size itself

Transform: TypeAlias = albumentations.BasicTransform | albumentations.BaseCompose


def require_name(name: str) -> None:
    """Refuse a name that is neither a transform allowed here nor a group.

    Raises:
        RecipeError: with the nearest name, or the reason.
    """
    if name in GROUPS or (name in TRANSFORMS and hasattr(albumentations, name)):
        return
    if hasattr(albumentations, name):
        raise RecipeError(
            [
                f"{name} cannot be used: it needs more than a picture, or changes its size or type "
                f"(crop_scale and model.image_size set the size)"
            ]
        )
    raise RecipeError([f"no transform '{name}' in albumentations{nearest(name, TRANSFORMS + GROUPS)}"])


def argument_names(name: str) -> tuple[str, ...]:
    """The arguments that an allowed transform or a group takes."""
    return tuple(inspect.signature(getattr(albumentations, name)).parameters)


def build_transform(name: str, values: Mapping[str, Any]) -> albumentations.BasicTransform:
    """Build an allowed transform and try it once on noise.

    Args:
        name: one of TRANSFORMS.
        values: its arguments; OpenCV's border modes and interpolations may be named as in NAMED_VALUES.

    Raises:
        RecipeError: a value is refused, or the transform fails or changes the size or type of a picture.
    """
    transform = _build(name, {key: _number_of(name, key, value) for key, value in values.items()})
    noise = np.random.default_rng(0).integers(0, 256, (PROBE_SIDE, PROBE_SIDE, 3), dtype=np.uint8)
    try:
        changed = transform(image=noise.copy(), force_apply=True)["image"]
    except UNUSABLE as error:
        problem = f"{name}: fails on a picture of {PROBE_SIDE} x {PROBE_SIDE} pixels: {error}"
        raise RecipeError([problem]) from error
    if changed.shape != noise.shape or changed.dtype != noise.dtype:
        found = f"makes {changed.dtype} {changed.shape} of a picture of uint8 {noise.shape}"
        raise RecipeError([f"{name}: {found}; wanted the same size and type"])
    return transform


def build_group(name: str, members: list[Transform], values: Mapping[str, Any]) -> albumentations.BaseCompose:
    """Build OneOf, SomeOf or Sequential around transforms.

    Raises:
        RecipeError: no members, or a value is refused.
    """
    if not members:
        raise RecipeError([f"{name}: its list of transforms is empty"])
    chance = values.get("p", 1.0)
    if not isinstance(chance, int | float) or not 0 <= chance <= 1:
        raise RecipeError([f"{name}: p: found {chance!r}, wanted a number from 0 to 1"])
    return _build(name, {**values, "transforms": members})


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a message that suggests the name most like this one; empty when none is."""
    matches = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def _number_of(name: str, argument: str, value: Any) -> Any:
    names = NAMED_VALUES.get(argument)
    if names is None or not isinstance(value, str):
        return value
    if value not in names:
        wanted = f"wanted {', '.join(names)}{nearest(value, names)}"
        raise RecipeError([f"{name}: {argument}: found '{value}', {wanted}"])
    return names[value]


def _build(name: str, values: Mapping[str, Any]) -> Any:
    try:
        with warnings.catch_warnings():
            # albumentations warns of values that it cannot use, and takes its defaults instead.
            warnings.simplefilter("error", UserWarning)
            return getattr(albumentations, name)(**values)
    except UNUSABLE as error:
        raise RecipeError([f"{name}: {reason}" for reason in _reasons(error, values)]) from error


def _reasons(error: Exception, values: Mapping[str, Any]) -> list[str]:
    if not isinstance(error.__cause__, pydantic.ValidationError):
        return [" ".join(str(error).split())]
    wanted: dict[str, list[str]] = {}
    for detail in error.__cause__.errors():
        argument = str(detail["loc"][0]) if detail["loc"] else "arguments"
        wanted.setdefault(argument, []).append(detail["msg"])
    return [
        f"{argument}: found {values.get(argument)!r}: {' or '.join(dict.fromkeys(messages))}"
        for argument, messages in wanted.items()
    ]
