"""A saved model in an interpreter that cannot import hf_tasks: the same pixels, answers and decisions."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_program
from PIL import Image
from transformers import AutoImageProcessor

from hf_tasks.images.decode import load_rgb
from hf_tasks.images.transform import ValidationTransform
from hf_tasks.tasks.image_classification.predictions import ClassifierPredictor
from hf_tasks.tasks.image_classification.task import TASK

# Float32 probabilities printed in full; the batch a picture is in moves the last digits.
LARGEST_DIFFERENCE_OF_PROBABILITIES = 1e-5

PLAIN = """
import json, sys
sys.modules["hf_tasks"] = None  # any import of it fails
from transformers import pipeline
classify = pipeline("image-classification", model=sys.argv[1], top_k=None)
paths = json.load(sys.stdin)
answers = classify(paths, batch_size=16)
json.dump([{a["label"]: a["score"] for a in answer} for answer in answers], sys.stdout)
"""


def plain_answers(model: Path, paths: list[Path]) -> list[dict[str, float]]:
    """Probability of each class, by the pipeline of transformers alone."""
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(model)],
        input=json.dumps([str(path) for path in paths]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def program_answers(run: Path, folder: Path, out: Path) -> list[dict[str, str]]:
    done = run_program("predict", run, folder, "--out", out, folder=ROOT)
    assert done.returncode == 0, done.stderr
    with out.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def largest_difference(rows: list[dict[str, str]], answers: list[dict[str, float]]) -> float:
    return max(
        abs(float(row[f"probability_{name}"]) - probability)
        for row, answer in zip(rows, answers, strict=True)
        for name, probability in answer.items()
    )


@pytest.mark.slow
def test_the_plain_pipeline_decides_as_predict_does_on_every_digit(digits, digits_run, tmp_path):
    rows = program_answers(digits_run, digits / "data/digits", tmp_path / "out.csv")

    answers = plain_answers(digits_run / "model", [ROOT / row["path"] for row in rows])

    assert len(rows) == 1797
    assert [max(answer, key=answer.get) for answer in answers] == [row["predicted"] for row in rows]
    assert largest_difference(rows, answers) < LARGEST_DIFFERENCE_OF_PROBABILITIES


@pytest.mark.slow
def test_the_plain_pipeline_decides_as_predict_does_on_large_jpegs(digits_run, odd_pictures, tmp_path):
    rows = program_answers(digits_run, odd_pictures[0].parent, tmp_path / "out.csv")

    answers = plain_answers(digits_run / "model", odd_pictures)

    assert [Path(row["path"]).name for row in rows] == [path.name for path in odd_pictures]
    assert [max(answer, key=answer.get) for answer in answers] == [row["predicted"] for row in rows]
    assert largest_difference(rows, answers) < LARGEST_DIFFERENCE_OF_PROBABILITIES


def test_the_saved_image_processor_gives_the_pixels_of_validation(digits_run, odd_pictures):
    saved = AutoImageProcessor.from_pretrained(digits_run / "model")
    ours = ClassifierPredictor(digits_run / "model").transform

    for path in odd_pictures:
        plain = saved(Image.open(path).convert("RGB"))["pixel_values"][0]
        turned = load_rgb({"path": str(path), "bytes": None})
        assert isinstance(ours, ValidationTransform)
        if path.name != "turned.jpg":
            torch.testing.assert_close(ours(turned), plain, atol=0, rtol=0)


@pytest.mark.slow
def test_logits_of_plain_transformers_are_those_of_the_predictor(digits_run, tmp_path):
    pixel_values = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.save(pixel_values, tmp_path / "pixels.pt")
    program = """
import sys, torch
sys.modules["hf_tasks"] = None
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained(sys.argv[1]).eval()
with torch.inference_mode():
    torch.save(model(torch.load(sys.argv[2], weights_only=True)).logits.clone(), sys.argv[3])
"""
    arguments = [str(digits_run / "model"), str(tmp_path / "pixels.pt"), str(tmp_path / "logits.pt")]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)
    model = TASK.load_model(digits_run / "model").eval()

    with torch.inference_mode():
        logits = model(pixel_values).logits

    plain = torch.load(tmp_path / "logits.pt", weights_only=True)
    torch.testing.assert_close(logits, plain, atol=1e-5, rtol=0)
