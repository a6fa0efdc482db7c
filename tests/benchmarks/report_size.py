"""Seconds, memory and bytes of the page of a run with 100,000 validation examples, none of them real.

    python tests/benchmarks/report_size.py            # one of 100 classes per picture
    python tests/benchmarks/report_size.py multilabel # 20 labels per picture

Figures, intervals and calibration are counted as well as the page. Pictures are JPEG files of 500x375.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from transformers import PretrainedConfig

from hf_tasks.contract.answers import ClassificationAnswers
from hf_tasks.images.decode import load_rgb
from hf_tasks.report.record import RunRecord
from hf_tasks.report.write import write_report
from hf_tasks.tasks.image_classification.measure import describe_answers
from hf_tasks.tasks.image_classification.predictions import decode_logits

EXAMPLES = 100_000
PICTURES = 200
MOST_SECONDS, MOST_GIBIBYTES, MOST_MEGABYTES = 60, 2.0, 10.0


def write_pictures(folder: Path) -> list[str]:
    """Write pictures of soft colours and noise, so that files are as large as photographs."""
    generator = np.random.default_rng(0)
    paths = []
    for number in range(PICTURES):
        colours = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        pixels = cv2.resize(colours, (500, 375), interpolation=cv2.INTER_CUBIC)
        noisy = pixels + generator.normal(0, 6, pixels.shape)
        paths.append(str(folder / f"{number}.jpg"))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=85)
    return paths


def draw_logits(*, is_multilabel: bool) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a model that is right about four times in five, and the labels."""
    generator = np.random.default_rng(0)
    if is_multilabel:
        labels = (generator.random((EXAMPLES, 20)) < 0.15).astype(np.float32)
        logits = 4 * labels - 2 + generator.normal(0, 1.5, labels.shape)
        return logits.astype(np.float32), labels
    labels = generator.integers(0, 100, EXAMPLES)
    logits = generator.normal(0, 1.5, (EXAMPLES, 100)).astype(np.float32)
    logits[np.arange(EXAMPLES), labels] += 5
    return logits, labels


def build(page: Path, paths: list[str], *, is_multilabel: bool) -> None:
    """All that follows the network's last batch."""
    logits, labels = draw_logits(is_multilabel=is_multilabel)
    names = tuple(f"class number {number}" for number in range(logits.shape[1]))
    kind = "multi_label_classification" if is_multilabel else "single_label_classification"
    config = PretrainedConfig(id2label=dict(enumerate(names)), problem_type=kind)
    found, decisions = decode_logits(logits, config)
    truth = found * labels + (1 - found) * (1 - labels) if is_multilabel else found[range(EXAMPLES), labels]
    losses = -np.log(truth.reshape(EXAMPLES, -1) + 1e-12).mean(axis=1)
    answers = ClassificationAnswers(
        class_names=names,
        labels=labels,
        probabilities_NC=found,
        decisions=decisions,
        losses_N=losses,
        paths=[f"validation/{number:06}.jpg" for number in range(EXAMPLES)],
        load_picture=lambda number: load_rgb({"path": paths[number % PICTURES], "bytes": None}),
    )
    metrics = {"loss": float(losses.mean()), **describe_answers(answers, logits, config)}
    record = RunRecord("synthetic", "image-classification", metrics, {}, {}, "task: image-classification", [])
    write_report(page, record, answers, wrong_images=20)


def main() -> None:
    """Measure, print, and fail where a limit is passed."""
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pictures(Path(folder))
        page = Path(folder) / "report.html"
        started, worked = time.perf_counter(), time.process_time()
        build(page, paths, is_multilabel="multilabel" in sys.argv[1:])
        seconds, busy = time.perf_counter() - started, time.process_time() - worked
        megabytes = page.stat().st_size / 1e6
    gibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{EXAMPLES:,} examples: {seconds:.1f} s, {busy:.1f} s of them at work (at most {MOST_SECONDS}), ",
        end="",
    )
    print(f"{gibibytes:.2f} GiB at its peak (at most {MOST_GIBIBYTES:g}), ", end="")
    print(f"{megabytes:.2f} MB (at most {MOST_MEGABYTES:g})")
    if seconds > MOST_SECONDS or gibibytes > MOST_GIBIBYTES or megabytes > MOST_MEGABYTES:
        sys.exit("over a limit")


if __name__ == "__main__":
    main()
