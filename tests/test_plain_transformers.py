"""A saved model in an interpreter that cannot import hf_tasks: the same pixels, answers and decisions."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_program, write_odd_pictures
from PIL import Image
from transformers import AutoImageProcessor

from hf_tasks.images.decode import load_rgb
from hf_tasks.images.transform import ValidationTransform
from hf_tasks.tasks.image_classification.predictions import ClassifierPredictor
from hf_tasks.tasks.image_classification.task import TASK

# Float32 probabilities printed in full; the batch a picture is in moves the last digits.
LARGEST_DIFFERENCE_OF_PROBABILITIES = 1e-5

PLAIN = """
import json, sys, torch
sys.modules["hf_tasks"] = None  # any import of it fails
from transformers import AutoModelForImageClassification, pipeline
folder, pixels, paths = json.load(sys.stdin)
model = AutoModelForImageClassification.from_pretrained(folder).eval()
with torch.inference_mode():
    logits = model(torch.load(pixels, weights_only=True)).logits
answers = pipeline("image-classification", model=folder, top_k=None)(paths, batch_size=16)
json.dump([logits.tolist(), [{a["label"]: a["score"] for a in answer} for answer in answers]], sys.stdout)
"""


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    write_odd_pictures(folder)
    return folder


@pytest.fixture(scope="module")
def pixel_values():
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def plain(digits, digits_run, odd_folder, pixel_values):
    """What transformers alone says: the logits of pixels, and the probabilities of each picture by path."""
    torch.save(pixel_values, odd_folder / "pixels.pt")
    pictures = [*sorted((digits / "data/digits").rglob("*.png")), *sorted(odd_folder.glob("*.jpg"))]
    paths = [str(path) for path in pictures]
    done = subprocess.run(
        [sys.executable, "-c", PLAIN],
        input=json.dumps([str(digits_run / "model"), str(odd_folder / "pixels.pt"), paths]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    logits, answers = json.loads(done.stdout)
    return torch.tensor(logits), dict(zip(paths, answers, strict=True))


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
@pytest.mark.parametrize(("kind", "count"), [("digits", 1797), ("large JPEG files", 4)])
def test_the_plain_pipeline_decides_as_predict_does(
    kind, count, digits, digits_run, odd_folder, plain, tmp_path
):
    folder = digits / "data/digits" if kind == "digits" else odd_folder
    rows = program_answers(digits_run, folder, tmp_path / "out.csv")

    answers = [plain[1][str(ROOT / row["path"])] for row in rows]

    assert len(rows) == count
    assert [max(answer, key=answer.get) for answer in answers] == [row["predicted"] for row in rows]
    assert largest_difference(rows, answers) < LARGEST_DIFFERENCE_OF_PROBABILITIES


def test_the_saved_image_processor_gives_the_pixels_of_validation(digits_run, odd_folder):
    saved = AutoImageProcessor.from_pretrained(digits_run / "model")
    ours = ClassifierPredictor(digits_run / "model").transform

    for path in sorted(odd_folder.glob("*.jpg")):
        plain = saved(Image.open(path).convert("RGB"))["pixel_values"][0]
        turned = load_rgb({"path": str(path), "bytes": None})
        assert isinstance(ours, ValidationTransform)
        if path.name != "turned.jpg":
            torch.testing.assert_close(ours(turned), plain, atol=0, rtol=0)


@pytest.mark.slow
def test_logits_of_plain_transformers_are_those_of_the_predictor(digits_run, plain, pixel_values):
    model = TASK.load_model(digits_run / "model").eval()

    with torch.inference_mode():
        logits = model(pixel_values).logits

    torch.testing.assert_close(logits, plain[0], atol=1e-5, rtol=0)
