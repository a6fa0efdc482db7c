"""Pictures made on the spot, in class folders."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_class_pictures(folder: Path, *, classes: int = 6, per_class: int = 7, seed: int = 0) -> None:
    """Noise around a colour for each class: `folder/classN/M.png`, 32 x 32."""
    generator = np.random.default_rng(seed)
    for label in range(classes):
        colour = generator.integers(60, 200, 3)
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(per_class):
            pixels = colour + generator.normal(0, 40, (32, 32, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(folder / f"class{label}" / f"{number}.png")
