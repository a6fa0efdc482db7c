"""Time and peak memory of the tables about many texts: neighbours, duplicates, clusters.

    python tests/benchmarks/text_neighbours.py [TEXTS] [--clusters]

The embeddings are those of a static encoder of random tokens, 256 wide; every tenth text stands twice but for
its last word. Texts, embeddings and Python with its libraries are counted with the rest.
"""

import resource
import sys
import time

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from hf_tasks.tasks.siamese.analytics import analytics_tables
from hf_tasks.tasks.siamese.model import PairModel, build_static
from hf_tasks.tasks.siamese.settings import Analytics, Static

TEXTS, WORDS, WORDS_A_TEXT = 100_000, 5000, 12
THRESHOLD = 0.9
WANTED_GB = 3.0


def make_texts(count: int) -> list[str]:
    """Texts of random words, of which every tenth is one before it with another last word."""
    generator = np.random.default_rng(0)
    words = [f"w{number:x}" for number in range(WORDS)]
    texts: list[str] = []
    for number in range(count):
        chosen = [words[word] for word in generator.integers(WORDS, size=WORDS_A_TEXT)]
        if number % 10 == 9:
            chosen[:-1] = texts[-1].split()[:-1]
        texts.append(" ".join(chosen))
    return list(dict.fromkeys(texts))


def embed(texts: list[str]) -> tuple[SentenceTransformer, np.ndarray]:
    """A static encoder whose tokens are those of the first texts, and the embeddings of all."""
    torch.manual_seed(0)
    encoder = build_static(Static(vocab_size=2000), texts[:5000], max_length=None)
    return encoder, encoder.encode(texts, batch_size=1024, show_progress_bar=False)


def main() -> None:
    """Make the tables and print what they cost."""
    count = next((int(argument) for argument in sys.argv[1:] if argument.isdigit()), TEXTS)
    clusters = 5 if "--clusters" in sys.argv else None
    texts = make_texts(count)
    encoder, embeddings_TD = embed(texts)
    model = PairModel(encoder, threshold=THRESHOLD)
    before, start, processor = peak_gb(), time.perf_counter(), time.process_time()
    tables = analytics_tables(model, texts, embeddings_TD, Analytics(smallest_cluster=clusters))
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    rows = ", ".join(f"{name} {len(table):,}" for name, table in tables.items())
    print(f"{len(texts):,} texts, {embeddings_TD.shape[1]} wide: {rows}")
    print(
        f"{seconds:.0f} s ({processor:.0f} s of processors), peak {peak_gb():.2f} GB, before {before:.2f} GB"
    )
    print(f"wanted: at most {WANTED_GB} GB")


def peak_gb() -> float:
    """Most memory that the process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
