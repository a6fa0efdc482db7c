"""Figures of 20,000 queries against 50,000 gallery vectors of width 256: ours beside pytorch-metric-learning.

    python tests/benchmarks/retrieval.py            # both ways of its AccuracyCalculator, then how ours grows
    python tests/benchmarks/retrieval.py --no-growth

Each runs in a process of its own, so that peak memory is its own: the most that the process held less what
it held with libraries and vectors loaded. AccuracyCalculator searches with FAISS if left alone (`faiss-cpu`),
or in one matrix of distances (`CustomKNN`); both are asked for precision@1 and MAP@R with k = max R.
`product` is the multiplication of queries and gallery alone, in tiles as ours: what no exact way goes below.
On a machine with other work, compare the seconds of CPU: threads that wait cost none.
"""

import argparse
import json
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import torch

QUERIES, GALLERY, WIDTH, CLASSES = 20_000, 50_000, 256, 1_000
GROWTH = ((25_000, 50_000), (50_000, 100_000), (100_000, 200_000))
NAMES = ("precision_at_1", "mean_average_precision_at_r")


def vectors(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of overlapping classes, and their labels."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, WIDTH)).astype(np.float32)
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    rows = centres[labels] + 2.5 * generator.standard_normal((count, WIDTH), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


class PeakMemory:
    """The most memory that this process held, MiB, looked at every 10 ms."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.start = self.peak = self.process.memory_info().rss
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self) -> None:
        while not self.is_over.wait(0.01):
            self.peak = max(self.peak, self.process.memory_info().rss)

    def __enter__(self) -> "PeakMemory":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.is_over.set()
        self.thread.join()
        self.mebibytes = (self.peak - self.start) / 2**20


def multiply(queries_QD: torch.Tensor, gallery_GD: torch.Tensor, *, tile: int = 1024) -> None:
    """All cosines, each tile written over the one before."""
    cosines_BC = torch.empty(tile, tile)
    for queries_BD in queries_QD.split(tile):
        for rows_CD in gallery_GD.split(tile):
            torch.mm(queries_BD, rows_CD.T, out=cosines_BC[: len(queries_BD), : len(rows_CD)])


def measure(who: str, queries: int, gallery: int) -> dict:
    """Time, memory and figures of one way, in this process."""
    query_rows, query_labels = vectors(queries, seed=1)
    gallery_rows, gallery_labels = vectors(gallery, seed=2)
    if who == "product":

        def figures() -> list[float]:
            multiply(torch.from_numpy(query_rows), torch.from_numpy(gallery_rows))
            return []
    elif who == "ours":
        from hf_tasks.metrics.retrieval import LabelledEmbeddings, average_scores, score_queries

        def figures() -> list[float]:
            scores = score_queries(
                LabelledEmbeddings(query_rows, query_labels), LabelledEmbeddings(gallery_rows, gallery_labels)
            )
            averages = average_scores(scores)
            return [averages["precision_at_1"], averages["map_at_r"]]
    else:
        from pytorch_metric_learning.distances import CosineSimilarity
        from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
        from pytorch_metric_learning.utils.inference import CustomKNN

        knn = CustomKNN(CosineSimilarity()) if who == "matrix" else None
        calculator = AccuracyCalculator(include=NAMES, k="max_bin_count", knn_func=knn)

        def figures() -> list[float]:
            found = calculator.get_accuracy(query_rows, query_labels, gallery_rows, gallery_labels)
            return [found[name] for name in NAMES]

    torch.zeros(2, 2) @ torch.zeros(2, 2)
    with PeakMemory() as memory:
        started, busy = time.perf_counter(), time.process_time()
        found = figures()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - busy
    times = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu_seconds, 2)}
    return {**times, "mebibytes": round(memory.mebibytes, 1), "figures": found}


def in_own_process(who: str, queries: int, gallery: int) -> dict:
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--measure", who, str(queries), str(gallery)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        return {
            "failed": finished.stderr.strip().splitlines()[-1] if finished.stderr else finished.returncode
        }
    return json.loads(finished.stdout)


def main() -> None:
    """Measure in turn, and print time, memory and figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", nargs=3)
    parser.add_argument("--no-growth", action="store_true")
    arguments = parser.parse_args()
    if arguments.measure:
        who, queries, gallery = arguments.measure
        print(json.dumps(measure(who, int(queries), int(gallery))))
        return
    billions = 2 * QUERIES * GALLERY * WIDTH / 1e9
    print(
        f"{QUERIES:,} x {GALLERY:,} x {WIDTH}: {billions:.0f} GFLOP, {torch.get_num_threads()} threads, CPU"
    )
    for who in ("product", "ours", "faiss", "matrix"):
        print(f"{who:8}", in_own_process(who, QUERIES, GALLERY), flush=True)
    for queries, gallery in () if arguments.no_growth else GROWTH:
        found = in_own_process("ours", queries, gallery)
        per_pair = found["cpu_seconds"] / queries / gallery * 1e9
        print(f"ours {queries:,} x {gallery:,}: {per_pair:.1f} ns a pair", found, flush=True)


if __name__ == "__main__":
    main()
