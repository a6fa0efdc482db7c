"""Batches of P classes with K pictures each, the same for any number of processes."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from hf_tasks.data.order import ExampleKey
from hf_tasks.errors import RecipeError

# Added to the epoch of a key when its row comes again, so that it draws other random numbers.
REPEAT = 2**32


class ClassBatchSampler(Sampler[ExampleKey]):
    """The keys of whole batches, one after the other: P classes, and K pictures of each side by side.

    Classes and the pictures of a class come in shuffled rounds, so within an epoch no class is drawn once
    more than another, however many pictures it has; in a batch all classes differ. A class with at least K
    pictures shows K different ones in a batch; one with fewer shows all of them and begins anew. A picture
    that comes again in an epoch is augmented anew.

    An epoch is decided by seed and epoch alone. W processes take a batch of P * K in W equal parts, so that
    together they see what one process would.
    """

    def __init__(self, labels_N: np.ndarray, *, classes: int, pictures: int, seed: int) -> None:
        """Start at epoch 0.

        Args:
            labels_N: class of each row, int64.
            classes: P, in a batch of all processes.
            pictures: K, of each class.
            seed: the run's seed, >= 0.

        Raises:
            RecipeError: there are fewer classes than P.
        """
        self.rows_of_class = [np.flatnonzero(labels_N == label) for label in np.unique(labels_N)]
        if len(self.rows_of_class) < classes:
            raise RecipeError(
                [
                    f"sampler.classes: found {classes}, but there are {len(self.rows_of_class)} classes to "
                    "train on; wanted at most as many"
                ]
            )
        self.classes = classes
        self.pictures = pictures
        self.seed = seed
        self.epoch = 0
        self.steps = max(1, len(labels_N) // (classes * pictures))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of keys: whole batches only."""
        return self.steps * self.classes * self.pictures

    def __iter__(self) -> Iterator[ExampleKey]:
        """The keys of one epoch."""
        epoch = self.epoch
        generator = np.random.default_rng((self.seed, epoch))
        class_rounds = _Rounds(np.arange(len(self.rows_of_class)), generator)
        picture_rounds = [_Rounds(rows, generator) for rows in self.rows_of_class]
        seen: Counter[int] = Counter()
        for _ in range(self.steps):
            for label in class_rounds.draw(self.classes):
                for row in picture_rounds[label].draw(self.pictures):
                    yield ExampleKey(epoch + seen[row] * REPEAT, row)
                    seen[row] += 1


class _Rounds:
    """Values in shuffled rounds: none comes again before all have come."""

    def __init__(self, values: np.ndarray, generator: np.random.Generator) -> None:
        self.values = values
        self.generator = generator
        self.left: list[int] = []

    def draw(self, count: int) -> list[int]:
        """The next values: all different, or where there are too few, each at least once."""
        drawn: list[int] = []
        while len(drawn) < count:
            if not self.left:
                round_ = self.generator.permutation(self.values).tolist()
                # What this draw holds already goes to the end of the new round.
                held = set(drawn) if len(set(drawn)) < len(self.values) else set()
                self.left = [value for value in round_ if value not in held]
                self.left += [value for value in round_ if value in held]
            drawn.append(self.left.pop(0))
        return drawn
