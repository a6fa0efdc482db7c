"""Epochs of training with and without the cache of decoded pictures, on two cores, and the memory it takes.

    python tests/benchmarks/cached_training.py [SMALL_COUNT LARGE_COUNT]

Speed: 1024-pixel JPEG files to 64 pixels with two workers: an epoch of Trainer.train with a small network,
and the batches alone, as where an accelerator runs the network.
Memory: the peak of a process that packs and then reads an epoch of small JPEG files, for few and for many.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import torch
from photographs import write_photograph
from timm.data import IMAGENET_DEFAULT_MEAN as MEAN
from timm.data import IMAGENET_DEFAULT_STD as STD
from transformers import TrainerCallback, TrainingArguments

from hf_tasks.data.order import EpochKeys
from hf_tasks.images.augmentation import load_augmentation
from hf_tasks.images.backbone import open_weights
from hf_tasks.images.dataset import TrainingPictures, packed_pictures
from hf_tasks.images.transform import TrainTransform
from hf_tasks.tasks.image_classification.model import build_classifier
from hf_tasks.tasks.image_classification.trainer import ImageClassificationTrainer

PICTURES = 1920
EPOCHS = 4
SIDE = 64
WANTED_RATIO = 5.0
COUNTS = (2_000, 50_000)
ALLOWED_GROWTH_MB = 100


@contextmanager
def silent(description: str, total: int):
    """No progress bar."""
    yield lambda pictures: None


def write_pictures(folder: Path, count: int, side: int) -> list[str]:
    """Square photographs."""
    generator = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        write_photograph(path, generator, width=side, height=side)
    return [str(path) for path in paths]


def rows_of(paths: list[str]) -> datasets.Dataset:
    """Rows with two classes."""
    rows = datasets.Dataset.from_dict({"image": paths, "label": [0, 1] * (len(paths) // 2)})
    return rows.cast_column("image", datasets.Image(decode=False))


class NoteEpochs(TrainerCallback):
    """When each epoch ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_epoch_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())


def epoch_seconds(rows: datasets.Dataset, folder: Path, *, cached: bool) -> tuple[float, float]:
    """Medians over epochs with two worker processes: of batches alone, and of training."""
    opened = open_weights("test_efficientnet", pretrained=False, weights=None, image_size=SIDE)
    model = build_classifier(opened, class_names=["a", "b"], is_multilabel=False, drop_rate=0.0)
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=64,
        dataloader_num_workers=2,
        dataloader_persistent_workers=True,
        remove_unused_columns=False,
        report_to="none",
        dataloader_pin_memory=False,
        num_train_epochs=EPOCHS,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = ImageClassificationTrainer(
        model, arguments, train_dataset=rows, eval_dataset=rows, augmentation="light"
    )
    if cached:
        trainer.pack_pictures(silent)
    loader, seconds = trainer.get_train_dataloader(), []
    for _ in range(EPOCHS):
        begun = time.perf_counter()
        finished = (trainer.train_dataset.finish(batch) for batch in loader)
        assert sum(len(batch["pixel_values"]) for batch in finished) == len(rows)
        seconds.append(time.perf_counter() - begun)
    del loader
    notes = NoteEpochs()
    trainer.add_callback(notes)
    trainer.train()
    trained = np.diff(notes.ends).tolist()
    return statistics.median(seconds[1:]), statistics.median(trained)  # workers start in the first


def measure_speed(folder: Path) -> None:
    """Print seconds of an epoch with and without the cache."""
    paths = write_pictures(folder, PICTURES, 1024)
    kilobytes = statistics.mean(Path(path).stat().st_size for path in paths) / 1000
    rows = rows_of(paths)
    plain, cached = (epoch_seconds(rows, folder, cached=cached) for cached in (False, True))
    print(
        f"{PICTURES} JPEG files of 1024x1024, {kilobytes:.0f} kB each, two workers on {os.cpu_count()} cores"
    )
    for what, without, with_cache in zip(("batches alone", "training"), plain, cached, strict=True):
        print(f"an epoch of {what}: {without:.2f} s without cache, {with_cache:.2f} s with it")
        print(f"  {PICTURES / without:.0f} and {PICTURES / with_cache:.0f} pictures/s")
        print(f"  ratio {without / with_cache:.2f} (wanted at least {WANTED_RATIO})")


def measure_memory(folder: Path, count: int) -> None:
    """Print the peak of this process after an epoch over `count` pictures; started in one of its own."""
    originals = write_pictures(folder, 20, 160)
    paths = []
    for number in range(count):
        paths.append(str(folder / f"link{number}.jpg"))
        os.link(originals[number % 20], paths[-1])
    transform = TrainTransform(load_augmentation("light"), seed=0, image_size=(64, 64), mean=MEAN, std=STD)
    pictures = packed_pictures(
        TrainingPictures(rows_of(paths), transform, label_column="label"), progress=silent
    )
    for key in EpochKeys(count, seed=0):
        pictures[key]
    status = Path("/proc/self/status").read_text()
    peak, now = (int(status.split(f"{name}:")[1].split()[0]) / 1e3 for name in ("VmHWM", "VmRSS"))
    print(f"{count} {peak:.1f} {now:.1f}")


def peak_megabytes(count: int) -> float:
    """Of a process that packs and reads `count` pictures."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, "--memory", folder, str(count)],
            env={**os.environ, "HF_DATASETS_CACHE": f"{folder}/cache"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        print(f"{count} pictures: {done.stdout.split()[1]} MB at the peak of an epoch")
        return float(done.stdout.split()[1])


def main() -> None:
    """Measure both and print them."""
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--memory"]:
        measure_memory(Path(sys.argv[2]), int(sys.argv[3]))
        return
    with tempfile.TemporaryDirectory() as folder:
        datasets.config.HF_DATASETS_CACHE = f"{folder}/cache"
        measure_speed(Path(folder))
    few, many = (peak_megabytes(count) for count in map(int, sys.argv[1:] or COUNTS))
    print(f"growth {many - few:.1f} MB (allowed {ALLOWED_GROWTH_MB})")


if __name__ == "__main__":
    main()
