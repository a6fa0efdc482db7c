"""How long a network takes for a batch, on this machine."""

import time
from dataclasses import dataclass

import numpy as np

from hf_tasks.contract.exports import Arrays, Network

BATCH_SIZES = (1, 32)
FEWEST, MOST = 5, 50
SECONDS = 0.25


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one batch."""

    median: float
    p95: float


def measure_latency(network: Network, inputs: Arrays) -> dict[int, Latency]:
    """Time batches of 1 and of 32 after two that do not count: 5 to 50, as a quarter of a second allows.

    Args:
        network: what is timed.
        inputs: at least one example, repeated to fill a batch.
    """
    return {
        size: _measure(network, {name: _repeated(value, size) for name, value in inputs.items()})
        for size in BATCH_SIZES
    }


def _repeated(value: np.ndarray, size: int) -> np.ndarray:
    return np.resize(value, (size, *value.shape[1:]))


def _measure(network: Network, inputs: Arrays) -> Latency:
    for _ in range(2):
        network(inputs)
    milliseconds: list[float] = []
    while len(milliseconds) < FEWEST or (len(milliseconds) < MOST and sum(milliseconds) < 1000 * SECONDS):
        start = time.perf_counter()
        network(inputs)
        milliseconds.append(1000 * (time.perf_counter() - start))
    return Latency(float(np.median(milliseconds)), float(np.percentile(milliseconds, 95)))
