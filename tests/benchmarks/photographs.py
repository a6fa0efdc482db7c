"""Pictures for the benchmarks whose files are as large as those of a camera."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def write_photograph(path: Path, generator: np.random.Generator, *, width: int, height: int) -> None:
    """Write a JPEG file of soft colours, sharp discs and noise."""
    side = min(width, height)
    colours = generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    pixels = cv2.resize(colours, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        centre = (int(generator.integers(width)), int(generator.integers(height)))
        colour = [int(level) for level in generator.integers(0, 256, 3)]
        cv2.circle(pixels, centre, int(generator.integers(side // 40, side // 6)), colour, -1)
    noisy = pixels + generator.normal(0, 6, pixels.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=85)
