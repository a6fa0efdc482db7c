"""Time per training step: ImageClassificationTrainer against a plain PyTorch loop.

    python tests/benchmarks/train_overhead.py

Both train the same network from the same weights on the same batches (same rows, order, augmentation and
DataLoader settings) with the same optimizer, schedule and gradient clipping; the Trainer with the callbacks
of `hf-tasks train`. They run in turn, and the medians over all steps are compared. The processor time of the
process is given beside the wall clock, as it is hardly touched by what else the machine does.
"""

import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise

import datasets
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.optimization import get_cosine_schedule_with_warmup

from hf_tasks import ImageClassificationTrainer
from hf_tasks.callbacks.checkpoints import KeepCheckpoints
from hf_tasks.callbacks.history import LogBeforePauses
from hf_tasks.callbacks.progress import ShowProgress
from hf_tasks.data.order import EpochKeys
from hf_tasks.images.backbone import open_weights
from hf_tasks.tasks.image_classification.model import build_classifier

ROWS, BATCH_SIZE, STEPS, ROUNDS = 320, 16, 20, 4
SIDE, CLASSES = 64, 10
WARM_UP = 3  # first steps of a round that are not counted: memory is claimed, kernels are chosen
WANTED_RATIO = 1.05

Times = list[tuple[float, float]]


class Clock(TrainerCallback):
    """Notes the wall clock and the processor time at the end of every step."""

    def __init__(self) -> None:
        self.ends: Times = []

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.ends.append(now())


def now() -> tuple[float, float]:
    """Wall clock and processor time of this process, in seconds."""
    return time.perf_counter(), time.process_time()


def make_rows() -> datasets.Dataset:
    """Pictures of noise as PNG bytes, a little larger than the network's input."""
    generator = np.random.default_rng(0)
    pictures = []
    for _ in range(ROWS):
        file = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (80, 80, 3), dtype=np.uint8)).save(file, format="PNG")
        pictures.append({"bytes": file.getvalue(), "path": None})
    rows = datasets.Dataset.from_dict({"image": pictures, "label": [row % CLASSES for row in range(ROWS)]})
    return rows.cast_column("image", datasets.Image(decode=False))


def build_trainer(rows: datasets.Dataset, folder: str) -> ImageClassificationTrainer:
    """The trainer as the program builds it, with the same random weights every time."""
    set_seed(0)
    names = [str(number) for number in range(CLASSES)]
    opened = open_weights("resnet18", pretrained=False, image_size=SIDE)
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=BATCH_SIZE,
        max_steps=STEPS,
        learning_rate=5e-4,
        weight_decay=0.05,
        lr_scheduler_type="cosine",
        save_strategy="no",
        logging_steps=50,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.accelerator.is_available(),
    )
    model = build_classifier(opened, class_names=names, is_multilabel=False)
    trainer = ImageClassificationTrainer(model, arguments, train_dataset=rows)
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    for callback in (LogBeforePauses(), KeepCheckpoints(1), ShowProgress(Console(quiet=True), ("loss",))):
        trainer.add_callback(callback)
    return trainer


def run_ours(trainer: ImageClassificationTrainer) -> tuple[Times, torch.Tensor]:
    """Train by the Trainer; the end of each step, and the first weights after the last."""
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    return clock.ends, next(trainer.model.parameters()).detach().clone()


def run_plain(trainer: ImageClassificationTrainer) -> tuple[Times, torch.Tensor]:
    """The same by hand, with nothing of the trainer but its pictures and its optimizer's settings."""
    model, device = trainer.model, trainer.args.device
    optimizer = trainer.create_optimizer()
    schedule = get_cosine_schedule_with_warmup(optimizer, 0, STEPS)
    sampler = EpochKeys(ROWS, seed=trainer.args.seed)
    loader = DataLoader(
        trainer.train_dataset,
        batch_size=BATCH_SIZE,
        sampler=sampler,
        num_workers=trainer.args.dataloader_num_workers,
        pin_memory=trainer.args.dataloader_pin_memory,
    )
    model.train()
    ends: Times = []
    for batch in endless(loader, sampler):
        pixels_BCHW = trainer.train_dataset.finish(batch)["pixel_values"].to(device)
        logits_BC = model(pixel_values=pixels_BCHW).logits
        functional.cross_entropy(logits_BC, batch["labels"].to(device)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ends.append(now())
        if len(ends) == STEPS:
            break
    return ends, next(model.parameters()).detach().clone()


def endless(loader: DataLoader, sampler: EpochKeys) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of one epoch after the other."""
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def seconds_per_step(ends: Times) -> list[tuple[float, float]]:
    """Wall clock and processor time of each counted step."""
    return [(later[0] - earlier[0], later[1] - earlier[1]) for earlier, later in pairwise(ends[WARM_UP:])]


def main() -> None:
    """Run both in turn and print the medians and their ratio."""
    torch.set_num_threads(1)
    rows = make_rows()
    seconds: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            plain_ends, plain_weights = run_plain(build_trainer(rows, folder))
            our_ends, our_weights = run_ours(build_trainer(rows, folder))
            torch.testing.assert_close(our_weights, plain_weights, atol=1e-5, rtol=0)
            seconds["plain"] += seconds_per_step(plain_ends)
            seconds["ours"] += seconds_per_step(our_ends)
    print(f"resnet18, {SIDE} x {SIDE}, batches of {BATCH_SIZE}; {len(seconds['ours'])} steps each, in turn")
    for index, name in enumerate(("wall clock", "processor time")):
        ours, plain = (statistics.median(step[index] for step in seconds[way]) for way in ("ours", "plain"))
        milliseconds = f"plain {1000 * plain:6.1f} ms  hf_tasks {1000 * ours:6.1f} ms"
        print(f"{name:15} {milliseconds}  ratio {ours / plain:.3f} (wanted at most {WANTED_RATIO})")


if __name__ == "__main__":
    main()
