"""Images per second on one core, 800x600 JPEG to a 224 tensor: `datasets` + PIL + torchvision against ours.

    python tests/benchmarks/decode_and_augment.py

Both crop, resize to 224, change brightness and contrast for half of the pictures, and normalise. Where the
torchvision script mirrors half of them, ours turns and shifts half of them (light.yaml), which is the dearer.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import datasets
import numpy as np
import torch
from photographs import write_photograph
from timm.data import IMAGENET_DEFAULT_MEAN as MEAN
from timm.data import IMAGENET_DEFAULT_STD as STD
from torchvision import transforms

from hf_tasks.data.order import ExampleKey
from hf_tasks.images.augmentation import load_augmentation
from hf_tasks.images.dataset import TrainingPictures
from hf_tasks.images.transform import TrainTransform

PICTURES = 60
ROUNDS = 7
SIDE = 224
WANTED_RATIO = 2.0


def write_pictures(folder: Path) -> list[str]:
    """Photographs of one size."""
    generator = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(PICTURES)]
    for path in paths:
        write_photograph(path, generator, width=800, height=600)
    return [str(path) for path in paths]


def build_theirs(rows: datasets.Dataset, crop_scale: tuple[float, float]) -> datasets.Dataset:
    """The usual script: pictures decoded by `datasets`, transforms by torchvision."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIDE, scale=crop_scale),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(brightness=0.2, contrast=0.2)], p=0.5),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )

    def augment(batch: dict) -> dict:
        pixel_values = [transform(image.convert("RGB")) for image in batch["image"]]
        return {"pixel_values": pixel_values, "labels": batch["label"]}

    return rows.cast_column("image", datasets.Image()).with_transform(augment)


def images_per_second(fetch, keys: list) -> float:
    """Fetch all keys once."""
    started = time.perf_counter()
    for key in keys:
        assert fetch(key)["pixel_values"].shape[-3:] == (3, SIDE, SIDE)
    return len(keys) / (time.perf_counter() - started)


def main() -> None:
    """Measure both, in turn, and print the medians and their ratio."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pictures(Path(folder))
        kilobytes = statistics.mean(Path(path).stat().st_size for path in paths) / 1000
        rows = datasets.Dataset.from_dict({"image": paths, "label": [0] * PICTURES})
        rows = rows.cast_column("image", datasets.Image(decode=False))
        light = load_augmentation("light")
        theirs = build_theirs(rows, light.crop_scale)
        transform = TrainTransform(light, seed=0, image_size=(SIDE, SIDE), mean=MEAN, std=STD)
        ours = TrainingPictures(rows, transform, label_column="label")

        def finished(key: ExampleKey) -> dict[str, torch.Tensor]:
            return ours.finish({"pixels": ours[key]["pixels"][None], "labels": torch.zeros(1)})

        speeds: dict[str, list[float]] = {"theirs": [], "ours": []}
        for epoch in range(ROUNDS):
            speeds["theirs"].append(images_per_second(theirs.__getitem__, list(range(PICTURES))))
            keys = [ExampleKey(epoch, row) for row in range(PICTURES)]
            speeds["ours"].append(images_per_second(finished, keys))
    their_speed, our_speed = (statistics.median(speeds[name]) for name in ("theirs", "ours"))
    print(f"{PICTURES} JPEG files of 800x600, {kilobytes:.0f} kB each; median of {ROUNDS} rounds on one core")
    print(f"datasets + PIL + torchvision  {their_speed:6.0f} images/s")
    print(f"hf_tasks                      {our_speed:6.0f} images/s")
    print(f"ratio                         {our_speed / their_speed:6.2f} (wanted at least {WANTED_RATIO})")


if __name__ == "__main__":
    main()
