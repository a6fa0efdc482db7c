"""Training pictures per second on a GPU: the network alone, a plain PyTorch loop, timm's loader, and ours.

    python tests/benchmarks/gpu_training.py [--workers 15] [--batch-size 256] [--networks NAME ...]

JPEG files of 800x600 to 224 pixels. "network alone" trains on one batch that stays on the GPU: no loader can
be faster. "PyTorch" is the usual script: PIL, torchvision, DataLoader. "timm" is a loop over the loader of
`timm.data.create_loader`, which sends bytes and normalises on the GPU. All train with the same optimizer
and clipping, under autocast to bfloat16, and are timed over the steps after the first ones, between two
synchronisations. "batches" is what each loader gives without a network, on the GPU.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import timm
import torch
import torchvision
import transformers
from photographs import write_photograph
from timm.data import IMAGENET_DEFAULT_MEAN as MEAN
from timm.data import IMAGENET_DEFAULT_STD as STD
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from transformers import TrainerCallback, TrainingArguments

from hf_tasks import ImageClassificationTrainer
from hf_tasks.images.backbone import open_weights
from hf_tasks.tasks.image_classification.model import build_classifier

NETWORKS = ("resnet50", "vit_small_patch16_224")
SIDE, CLASSES = 224, 10
ORIGINALS, FILES = 2048, 16_384  # eight links to each original, so that the files stay in memory
# Workers get ahead while the first step compiles; what they have ready is used up before the clock starts.
WARM_UP, STEPS = 32, 32

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


def write_picture(folder: Path, number: int) -> None:
    """A photograph, linked to be many."""
    path = folder / str(number % CLASSES) / f"{number}.jpg"
    write_photograph(path, np.random.default_rng(number), width=800, height=600)
    for copy in range(number + ORIGINALS, FILES, ORIGINALS):
        os.link(path, path.with_name(f"{copy}.jpg"))


def write_pictures(folder: Path) -> list[Path]:
    """A folder a class."""
    for number in range(CLASSES):
        (folder / str(number)).mkdir()
    with multiprocessing.get_context("fork").Pool() as pool:
        pool.map(partial(write_picture, folder), range(ORIGINALS), chunksize=16)
    return sorted(folder.glob("*/*.jpg"))


def build_network(name: str) -> torch.nn.Module:
    """With random weights, as the program builds it."""
    opened = open_weights(name, pretrained=False, weights=None, image_size=SIDE)
    return build_classifier(
        opened, class_names=[str(number) for number in range(CLASSES)], is_multilabel=False
    )


def build_trainer(
    name: str, rows: datasets.Dataset, folder: str, options: argparse.Namespace, *, compiled: bool
) -> ImageClassificationTrainer:
    """As a recipe with `training.bf16: true` makes it."""
    arguments = TrainingArguments(
        folder,
        per_device_train_batch_size=options.batch_size,
        max_steps=WARM_UP + STEPS,
        learning_rate=1e-4,
        bf16=True,
        torch_compile=compiled,
        dataloader_num_workers=options.workers,
        logging_nan_inf_filter=False,
        logging_steps=1000,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    return ImageClassificationTrainer(
        build_network(name), arguments, train_dataset=rows, eval_dataset=rows, augmentation="light"
    )


class Stopwatch(TrainerCallback):
    """Seconds of the steps after the first ones."""

    def __init__(self) -> None:
        self.steps = 0
        self.seconds = 0.0

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.tick()

    def tick(self) -> None:
        """A step has ended."""
        self.steps += 1
        if self.steps in (WARM_UP, WARM_UP + STEPS):
            torch.cuda.synchronize()
            self.seconds = time.perf_counter() - self.seconds


def train_plain(network: torch.nn.Module, batches: Batches, *, compiled: bool) -> float:
    """Seconds of the timed steps of a loop by hand."""
    network = network.cuda().train()
    called = torch.compile(network) if compiled else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    watch = Stopwatch()
    for pixels, labels in islice(batches, WARM_UP + STEPS):
        with torch.autocast("cuda", torch.bfloat16):
            logits = called(pixel_values=pixels).logits
        functional.cross_entropy(logits.float(), labels).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        watch.tick()
    return watch.seconds


def train_ours(trainer: ImageClassificationTrainer) -> float:
    """Seconds of the timed steps of Trainer.train."""
    watch = Stopwatch()
    trainer.add_callback(watch)
    trainer.train()
    return watch.seconds


def time_batches(batches: Iterable) -> float:
    """Seconds to give as many batches, after as many first ones, without a network."""
    watch = Stopwatch()
    for _ in islice(batches, WARM_UP + STEPS):
        watch.tick()
    return watch.seconds


def resident(batch_size: int) -> Batches:
    """One batch that stays on the GPU."""
    pixels = torch.randn(batch_size, 3, SIDE, SIDE, device="cuda")
    labels = torch.arange(batch_size, device="cuda") % CLASSES
    while True:
        yield pixels, labels


def of_torchvision(folder: Path, options: argparse.Namespace) -> Batches:
    """PIL and torchvision in worker processes, pinned memory."""
    transforms = torchvision.transforms
    rows = ImageFolder(
        str(folder),
        transforms.Compose(
            [
                transforms.RandomResizedCrop(SIDE, scale=(0.6, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply([transforms.ColorJitter(brightness=0.2, contrast=0.2)], p=0.5),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        ),
    )
    loader = DataLoader(
        rows, options.batch_size, shuffle=True, num_workers=options.workers, pin_memory=True, drop_last=True
    )
    for pixels, labels in loader:
        yield pixels.to("cuda", non_blocking=True), labels.to("cuda", non_blocking=True)


def of_timm(folder: Path, options: argparse.Namespace) -> Batches:
    """timm's own loader and prefetcher."""
    loader = timm.data.create_loader(
        timm.data.ImageDataset(str(folder)),
        input_size=(3, SIDE, SIDE),
        batch_size=options.batch_size,
        is_training=True,
        scale=(0.6, 1.0),
        hflip=0.5,
        color_jitter=0.2,
        color_jitter_prob=0.5,
        interpolation="bicubic",
        num_workers=options.workers,
        pin_memory=True,
        persistent_workers=False,
    )
    yield from loader


def of_ours(trainer: ImageClassificationTrainer) -> Iterator[dict[str, torch.Tensor]]:
    """What a training step is given."""
    for batch in trainer.get_train_dataloader():
        yield trainer._prepare_inputs(batch)


@contextmanager
def silent(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """No progress bar."""
    yield lambda pictures: None


def main() -> None:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    options = parser.parse_args()
    torch.set_num_threads(1)

    def speed(seconds: float) -> float:
        torch.cuda.empty_cache()
        torch._dynamo.reset()
        return options.batch_size * STEPS / seconds

    with tempfile.TemporaryDirectory() as aside:
        datasets.config.HF_DATASETS_CACHE = f"{aside}/cache"
        pictures = Path(aside, "pictures")
        pictures.mkdir()
        paths = write_pictures(pictures)
        originals = [path for path in paths if int(path.stem) < ORIGINALS] * (FILES // ORIGINALS)
        labels = [int(path.parent.name) for path in originals]
        rows = datasets.Dataset.from_dict({"image": list(map(str, originals)), "label": labels})
        rows = rows.cast_column("image", datasets.Image(decode=False))

        def trainer(name: str, *, cached: bool, compiled: bool) -> ImageClassificationTrainer:
            made = build_trainer(name, rows, f"{aside}/run", options, compiled=compiled)
            if cached:
                made.pack_pictures(silent)
            return made

        card = torch.cuda.get_device_name()
        print(f"{card}, {os.cpu_count()} cores, {options.workers} workers, batches of {options.batch_size};")
        print(f"torch {torch.__version__}, transformers {transformers.__version__}, timm {timm.__version__}")
        loaders: dict[str, Callable[[], Iterable]] = {
            "PyTorch": partial(of_torchvision, pictures, options),
            "timm": partial(of_timm, pictures, options),
            "hf_tasks": lambda: of_ours(trainer("resnet18", cached=False, compiled=False)),
            "hf_tasks, cached": lambda: of_ours(trainer("resnet18", cached=True, compiled=False)),
        }
        print("| pictures/s | " + " | ".join(["network alone", *loaders]) + " |", flush=True)
        alone = [speed(time_batches(make())) for make in loaders.values()]
        print("| batches | | " + " | ".join(f"{each:.0f}" for each in alone) + " |", flush=True)
        for name in options.networks:
            for compiled in (False, True):
                seconds = train_plain(build_network(name), resident(options.batch_size), compiled=compiled)
                found = [speed(seconds)]
                # No network makes these two loaders faster.
                for batches in () if compiled else (of_torchvision, of_timm):
                    loaded = batches(pictures, options)
                    found.append(speed(train_plain(build_network(name), loaded, compiled=False)))
                for cached in (False, True):
                    found.append(speed(train_ours(trainer(name, cached=cached, compiled=compiled))))
                label = f"{name}, compiled" if compiled else name
                shown = [f"{each:.0f}" for each in found]
                if compiled:
                    shown[1:1] = ["", ""]
                print(f"| {label} | " + " | ".join(shown) + " |", flush=True)


if __name__ == "__main__":
    main()
