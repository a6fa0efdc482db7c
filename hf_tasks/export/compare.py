"""Outputs of exported networks beside PyTorch's, on real validation examples.

Legend of axes: N examples.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from hf_tasks.contract.exports import Arrays, Decisions, ExportPlan, Network
from hf_tasks.export.network import TorchNetwork


@dataclass(frozen=True)
class Comparison:
    """How one network's outputs differ from the reference's on N examples."""

    differences_N: np.ndarray
    """Largest absolute difference of each example."""
    mean_difference: float
    scale: float
    """Largest absolute output of the reference."""
    answers: np.ndarray
    """What `predict` would say of the network's outputs, (N, ...)."""
    reference: Decisions
    decisions: Decisions
    metric_before: float
    metric_after: float
    metric_loss: float
    """How much is lost, whichever way the metric goes; negative where the network does better."""

    @property
    def largest_difference(self) -> float:
        """Over all examples."""
        return float(self.differences_N.max())

    def agreement(self, *, tie: float = 0.0) -> float:
        """Share of decisions that are alike; a reference's margin of at most `tie` counts as alike."""
        count = len(self.reference.margins_N)
        alike_N = (self.reference.values == self.decisions.values).reshape(count, -1).all(axis=1)
        return float((alike_N | (self.reference.margins_N <= tie)).mean())


def choose_rows(rows: int, *, sample: int | None) -> list[int]:
    """Validation rows for a proof: all, or a sample that is always the same one, in rising order."""
    if sample is None or sample >= rows:
        return list(range(rows))
    return sorted(np.random.default_rng(0).choice(rows, sample, replace=False).tolist())


def compare_networks(
    plan: ExportPlan, networks: Mapping[str, Network], rows: Sequence[int]
) -> dict[str, Comparison]:
    """Run every network and PyTorch over the same examples, in one pass.

    Args:
        plan: gives the examples and PyTorch's own network.
        networks: by format.
        rows: validation rows.
    """
    reference = _Collected(plan)
    collected = {name: _Collected(plan) for name in networks}
    torch_network = TorchNetwork(plan)
    batches = plan.batches(rows, plan.batch_size)
    for start, inputs in zip(range(0, len(rows), plan.batch_size), batches, strict=True):
        batch = rows[start : start + plan.batch_size]
        wanted = torch_network(inputs)
        reference.add(wanted, wanted, batch)
        for name, network in networks.items():
            collected[name].add(network(inputs), wanted, batch)
    before = reference.answers
    return {name: _comparison(plan, found, before, rows) for name, found in collected.items()}


def compare_end_to_end(
    plan: ExportPlan,
    networks: Mapping[str, Network],
    rows: Sequence[int],
    *,
    twins: Mapping[str, np.ndarray],
) -> dict[str, Comparison]:
    """Run every complete graph over the pictures as they were decoded.

    Args:
        plan: must have pictures.
        networks: by format; they take `pictures` and give answers.
        rows: validation rows.
        twins: answers of each format's plain network to the same rows, from Python's preparation.
    """
    collected = {name: _Collected(plan) for name in networks}
    done = 0
    for inputs in picture_batches(plan, rows):
        batch = slice(done, done + len(inputs["pictures"]))
        done = batch.stop
        for name, network in networks.items():
            collected[name].add_answers(network(inputs), twins[name][batch])
    return {name: _comparison(plan, found, twins[name], rows) for name, found in collected.items()}


def picture_batches(plan: ExportPlan, rows: Sequence[int]) -> Iterator[Arrays]:
    """Decoded pictures of the rows, in order; neighbours of the same size share a batch."""
    if plan.pictures is None:
        return
    for start in range(0, len(rows), plan.batch_size):
        loaded = [plan.pictures.load(row) for row in rows[start : start + plan.batch_size]]
        for _, same in groupby(loaded, key=lambda picture: picture.shape):
            yield {"pictures": np.stack(list(same))}


class _Collected:
    """Differences and answers of one network, batch by batch; outputs themselves are not kept."""

    def __init__(self, plan: ExportPlan) -> None:
        self.plan = plan
        self.scale = 0.0
        self._differences: list[np.ndarray] = []
        self._means: list[np.ndarray] = []
        self._answers: list[np.ndarray] = []

    def add(self, found: np.ndarray, wanted: np.ndarray, rows: Sequence[int]) -> None:
        self._add(found, wanted, self.plan.answers(found, rows))

    def add_answers(self, found: np.ndarray, wanted: np.ndarray) -> None:
        self._add(found, wanted, found)

    def _add(self, found: np.ndarray, wanted: np.ndarray, answers: np.ndarray) -> None:
        apart = np.abs(found.astype(np.float64) - wanted).reshape(len(found), -1)
        self._differences.append(apart.max(axis=1))
        self._means.append(apart.mean(axis=1))
        self._answers.append(answers)
        self.scale = max(self.scale, float(np.abs(wanted).max()))

    @property
    def differences(self) -> np.ndarray:
        return np.concatenate(self._differences)

    @property
    def mean_difference(self) -> float:
        return float(np.concatenate(self._means).mean())

    @property
    def answers(self) -> np.ndarray:
        return np.concatenate(self._answers)


def _comparison(plan: ExportPlan, found: _Collected, before: np.ndarray, rows: Sequence[int]) -> Comparison:
    answers = found.answers
    metric_before = plan.measure(before, rows)
    metric_after = math.inf if plan.lower_is_better else 0.0
    if np.isfinite(answers).all():
        metric_after = plan.measure(answers, rows)
    gain = metric_after - metric_before
    return Comparison(
        differences_N=found.differences,
        mean_difference=found.mean_difference,
        scale=found.scale,
        answers=answers,
        reference=plan.decide(before, rows),
        decisions=plan.decide(answers, rows),
        metric_before=metric_before,
        metric_after=metric_after,
        metric_loss=gain if plan.lower_is_better else -gain,
    )
