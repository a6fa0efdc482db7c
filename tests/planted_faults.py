"""A set of pictures with every fault planted that a check looks for, and what the check is to say of it."""

import csv
from pathlib import Path

import numpy as np
from pictures import write_class_pictures
from PIL import Image

from hf_tasks.data.labels import UNSEEN

RECIPE = """\
task: image-classification
output: runs/planted
data:
  train: {table: train.csv, images: pictures}
  validation: {table: validation.csv, images: pictures}
model: {name: test_resnet, pretrained: false, image_size: 32}
training: {num_train_epochs: 2, per_device_train_batch_size: 8, use_cpu: true, dataloader_num_workers: 0}
"""

EXPECTED = {
    ("error", "rows without a label"): ["train row 19"],
    ("error", f"labels that differ from a class only in {UNSEEN}"): ["train row 20", "validation row 7"],
    ("error", "labels that no training row has"): ["validation row 8"],
    ("error", "picture files that are not there"): ["train row 21"],
    ("error", "picture files without content"): ["train row 22"],
    ("error", "pictures that cannot be decoded"): ["train row 23", "train row 24"],
    ("warning", "classes that differ only in upper and lower case"): ["'Class0' and 'class0'"],
    ("warning", "rare classes a letter away from another"): ["'clsas0' (1 rows) and 'class0' (9)"],
    ("warning", "classes with fewer than 5 training rows"): ["Class0: 1", "clsas0: 1"],
    ("warning", "pictures that are not what their ending says"): ["train row 27"],
    ("warning", "tiny pictures, a side below 8 pixels"): ["train row 28"],
    ("warning", "huge pictures, above 24 million pixels"): ["train row 29"],
    ("warning", "odd shapes, a side over 4 times the other"): ["train row 30"],
    ("warning", "the same pictures with different labels"): ["train row 31", "train row 32"],
    ("warning", "the same pictures to train on and to measure on"): ["train row 33"],
    ("warning", "pictures that stand there again"): ["train row 34"],
    ("warning", "nearly the same pictures with different labels"): ["train row 7"],
    ("warning", "nearly the same pictures to train on and to measure on"): ["train row 2"],
    ("note", "nearly the same pictures again"): ["train row 1"],
    ("note", "classes without a validation row"): ["Class0", "clsas0"],
    ("warning", "largest class 16 times the smallest"): ["class1: 16, Class0: 1"],
}  # fmt: skip


def write_planted(folder: Path) -> Path:
    """Three classes of six pictures and two to measure on, then a row for each fault; returns the recipe."""
    pictures = folder / "pictures"
    write_class_pictures(pictures, classes=3, per_class=8)
    train = [(f"class{label}/{number}.png", f"class{label}") for label in range(3) for number in range(6)]
    held_out = [(f"class{label}/{number}.png", f"class{label}") for label in range(3) for number in (6, 7)]
    _write_files(pictures)
    train += [
        ("nameless.png", ""), ("spaced.png", " class1"), ("gone.png", "class1"), ("empty.png", "class1"),
        ("cut.png", "class1"), ("note.png", "class1"), ("case.png", "Class0"), ("slip.png", "clsas0"),
        ("named.jpg", "class1"), ("tiny.png", "class1"), ("huge.png", "class1"), ("odd.png", "class1"),
        ("disputed.png", "class1"), ("disputed_copy.png", "class2"), ("leak.png", "class0"),
        ("copy.png", "class0"), ("near_again.png", "class0"), ("near_other.png", "class2"),
    ]  # fmt: skip
    held_out += [("spaced_2.png", "class1 "), ("unseen.png", "class9"), ("near_held_out.png", "class0")]
    for name, rows in {"train": train, "validation": held_out}.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("image_path", "label"), *rows])
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder / "recipe.yaml"


def _write_files(pictures: Path) -> None:
    generator = np.random.default_rng(1)

    def noise(name: str, size: tuple[int, int] = (32, 32)) -> None:
        pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / name, format="PNG")

    for name in ("nameless", "spaced", "spaced_2", "case", "slip", "unseen", "disputed"):
        noise(f"{name}.png")
    noise("named.jpg")
    noise("tiny.png", (7, 9))
    noise("odd.png", (165, 41))
    Image.new("RGB", (6001, 4000), "teal").save(pictures / "huge.png")
    (pictures / "empty.png").touch()
    (pictures / "cut.png").write_bytes((pictures / "class1/0.png").read_bytes()[:-300])
    (pictures / "note.png").write_text("no picture")
    copies = {"disputed_copy": "disputed", "leak": "class0/6", "copy": "class0/4"}
    for name, source in copies.items():
        (pictures / f"{name}.png").write_bytes((pictures / f"{source}.png").read_bytes())
    near = {"near_again": "class0/0", "near_other": "class1/0", "near_held_out": "class0/1"}
    for name, source in near.items():
        picture = Image.open(pictures / f"{source}.png")
        picture.resize((96, 96), Image.Resampling.NEAREST).save(pictures / f"{name}.png")
