"""What only a GPU can show: every task trains on it, exactly where asked to, and its model answers anywhere.

python -m pytest -m gpu tests/test_gpu.py
"""

import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from conftest import ROOT, once
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from hf_tasks import load_recipe, run
from hf_tasks.artifacts import Artifacts, read_json
from hf_tasks.data.samples import write_digits_retrieval
from hf_tasks.data.text_samples import write_text, write_text_pairs
from hf_tasks.metrics.neighbours import unit_rows
from hf_tasks.metrics.retrieval import LabelledEmbeddings, average_scores, score_queries
from hf_tasks.registry import load_task
from hf_tasks.workflow import evaluate

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")]

RECIPES = {
    "image-classification": "image_classification/digits",
    "metric-learning": "metric_learning/arcface",
    "siamese": "siamese/docstring_pairs",
    "language-model": "language_model/docstrings",
}
MEASURED = {"accuracy", "cmc_at_1", "average_precision", "bits_per_byte"}
SHORT = [
    "training.max_steps=6",
    "training.eval_strategy=steps",
    "training.eval_steps=3",
    "training.save_strategy=steps",
    "training.save_steps=3",
]


@pytest.fixture(scope="module")
def samples(digits):
    """Where the recipes find what they read."""
    for name, write in (
        ("digits-retrieval", write_digits_retrieval),
        ("text_pairs", write_text_pairs),
        ("text", write_text),
    ):
        once(digits / "data" / name, partial(write, digits / "data" / name))
    return digits


@pytest.fixture
def train(samples, monkeypatch, tmp_path):
    """Six steps of a shipped recipe, with a checkpoint after three."""
    monkeypatch.chdir(samples)

    def train(task: str, *overrides: str, resume: bool = False) -> Artifacts:
        output = f"output={tmp_path}/{task}"
        recipe = load_recipe(ROOT / f"recipes/{RECIPES[task]}.yaml", [*SHORT, output, *overrides])
        return run(recipe, resume=resume, overwrite=not resume)

    return train


def weights(folder) -> dict[str, torch.Tensor]:
    """All tensors below a folder, by file and name."""
    files = sorted(folder.rglob("*.safetensors"))
    return {
        f"{file.relative_to(folder)} {name}": value
        for file in files
        for name, value in load_file(file).items()
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("task", RECIPES)
def test_a_task_trains_in_every_precision_and_is_measured_again_as_it_was(train, tmp_path, task, precision):
    done = train(task, *([] if precision == "fp32" else [f"training.{precision}=true"]))

    again = evaluate(done.folder, out=tmp_path / "again")

    saved = weights(done.model).values()
    assert saved
    assert {value.dtype for value in saved if value.is_floating_point()} == {torch.float32}
    found, wanted = (
        {name: value for name, value in read_json(run.metrics).items() if isinstance(value, float)}
        for run in (again, done)
    )
    assert {name: found[name] for name in wanted if name in MEASURED} == pytest.approx(
        {name: wanted[name] for name in wanted if name in MEASURED}, abs=0.01
    )
    assert MEASURED & wanted.keys()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_classifier_of_the_gpu_gives_the_same_logits_on_the_processor(train, compiled):
    done = train("image-classification", "training.bf16=true", f"training.torch_compile={compiled}")
    pixels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    on_gpu = (
        load_task("image-classification").load_predictor(done.model).network({"pixel_values": pixels.numpy()})
    )

    with torch.no_grad():
        on_processor = AutoModelForImageClassification.from_pretrained(done.model).eval()(pixels).logits
    np.testing.assert_allclose(on_gpu, on_processor.numpy(), atol=1e-4)


@pytest.mark.parametrize("task", RECIPES)
def test_trained_twice_or_resumed_is_the_same_run_where_determinism_is_asked_for(train, task):
    exact = ["training.full_determinism=true", "training.bf16=true"]
    first = weights(train(task, *exact).model)

    second = train(task, *exact)
    again = weights(second.model)
    shutil.rmtree(second.model)
    shutil.rmtree(second.checkpoints / "checkpoint-6")
    resumed = weights(train(task, *exact, resume=True).model)

    for other in (again, resumed):
        assert other.keys() == first.keys()
        assert [name for name in first if not torch.equal(other[name], first[name])] == []


def test_a_gallery_is_ranked_on_the_gpu_as_on_the_processor():
    generator = np.random.default_rng(0)
    parts = [
        LabelledEmbeddings(
            unit_rows(generator.normal(size=(count, 64)).astype(np.float32)).numpy(),
            generator.integers(0, 40, count),
        )
        for count in (300, 2000)
    ]

    on_gpu, on_processor = (score_queries(*parts, device=device) for device in ("cuda", "cpu"))

    assert average_scores(on_gpu) == pytest.approx(average_scores(on_processor), abs=1e-12)
    assert np.array_equal(on_gpu.neighbours_QK, on_processor.neighbours_QK)
    np.testing.assert_allclose(on_gpu.neighbour_cosines_QK, on_processor.neighbour_cosines_QK, atol=1e-12)


def test_the_configuration_for_one_gpu_trains(samples, tmp_path):
    configuration = ROOT / "recipes/accelerate/one_gpu.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(configuration)]
    recipe = str(ROOT / "recipes/image_classification/digits.yaml")

    done = subprocess.run(
        [*launch, "-m", "hf_tasks", "train", recipe, *SHORT, f"output={tmp_path}/run"],
        cwd=samples,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/model/model.safetensors").is_file()
