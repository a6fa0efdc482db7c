"""Runs on texts are exact: killed and resumed, in one process and in two, loss heads included."""

import json
import signal
from functools import partial

import numpy as np
import pytest
from forked_program import end_code, first_alone_writes_below, kill_at_step, run_group, run_to_end, start
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow

TRAINING = """\
training:
  max_steps: 6
  per_device_train_batch_size: 8
  eval_strategy: steps
  eval_steps: 2
  save_strategy: steps
  save_steps: 2
  logging_steps: 1
  optim: sgd          # Adam and clipping would hide a gradient of another length
  max_grad_norm: 0
  learning_rate: 0.05
  use_cpu: true
"""
SIAMESE = """\
task: siamese
data: {train: {table: pairs.csv}, validation: {table: test.csv}}
model: {static: {embedding_size: 16, vocab_size: 400}}
loss: {name: difference-head}
"""
LANGUAGE = """\
task: language-model
data: {train: {text: train.txt}, validation: {text: test.txt}}
model: {from_scratch: {vocab_size: 300, hidden_size: 16, layers: 1, heads: 2, block_size: 16}}
generation: {samples: 0}
"""
RECIPES = {
    "siamese": SIAMESE,
    "causal": f"{LANGUAGE}objective: causal\n",
    "masked": f"{LANGUAGE}objective: masked\n",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Small texts, and a recipe for each kind of run."""
    folder = tmp_path_factory.mktemp("texts")
    lines = [f"the {row}th day had {row % 3} hours of rain and {row % 7} of sun" for row in range(90)]
    for name, part in (("train", lines[:70]), ("test", lines[70:])):
        (folder / f"{name}.txt").write_text("\n".join(part))
    for name, count, seed in (("pairs", 60, 0), ("test", 23, 1)):
        numbers = np.random.default_rng(seed).integers(0, 99, (count, 2))
        rows = [
            f"{one} days,{one if row % 2 else other} hours,{row % 2}"
            for row, (one, other) in enumerate(numbers)
        ]
        (folder / f"{name}.csv").write_text("\n".join(["text_1,text_2,label", *rows]))
    for name, text in RECIPES.items():
        text = text.replace("pairs.csv", f"{folder}/pairs.csv").replace("train.txt", f"{folder}/train.txt")
        text = text.replace("test.csv", f"{folder}/test.csv").replace("test.txt", f"{folder}/test.txt")
        (folder / f"{name}.yaml").write_text(f"{text}output: {folder}/{name}\n{TRAINING}")
    return folder


@pytest.fixture(scope="module", params=RECIPES)
def whole(home, request):
    """A finished run in one process."""
    run_to_end(["train", str(home / f"{request.param}.yaml")], home / "log")
    return home / request.param


def _weights(run):
    return {path.name: load_file(path) for path in sorted((run / "model").glob("*.safetensors"))}


def _figures(run):
    metrics = json.loads((run / "metrics.json").read_text())
    return {name: value for name, value in metrics.items() if isinstance(value, float)}


def _require_same(run, other):
    """All weights, those of a head among them, bit for bit, and figures and table to the last digit."""
    for path in sorted((other / "model").rglob("*")):
        if path.suffix in {".safetensors", ".json"}:
            assert (run / path.relative_to(other)).read_bytes() == path.read_bytes(), path.name
    assert _figures(run) == _figures(other)
    assert (run / "predictions.csv").read_text() == (other / "predictions.csv").read_text()


def test_killed_at_a_step_and_resumed_is_the_same_run(home, whole):
    arguments = ["train", str(home / f"{whole.name}.yaml"), f"output={home}/{whole.name}-killed"]

    killed = end_code(start(arguments, home / "log", prepare=partial(kill_at_step, 3)))
    run_to_end([*arguments, "--resume"], home / "log")

    assert killed == -signal.SIGKILL
    _require_same(home / f"{whole.name}-killed", whole)


def test_two_processes_killed_and_resumed_train_and_measure_as_one_does(home, whole):
    """The same global batch; the figures are those of all rows, whoever embedded them."""
    two = home / f"{whole.name}-two"
    arguments = ["train", str(home / f"{whole.name}.yaml"), f"output={two}"]
    arguments.append("training.per_device_train_batch_size=4")

    fault = partial(kill_at_step, 3)
    run_group(arguments, home / "log", processes=2, prepare=fault, code=-signal.SIGKILL)
    alone = partial(first_alone_writes_below, two)
    run_group([*arguments, "--resume"], home / "log", processes=2, prepare=alone)

    weights, wanted = _weights(two), _weights(whole)
    assert weights.keys() == wanted.keys()
    for file, tensors in wanted.items():
        for name, tensor in tensors.items():
            np.testing.assert_allclose(weights[file][name], tensor, atol=1e-5, rtol=0, err_msg=name)
    figures = _figures(two)
    for name, value in _figures(whole).items():
        assert figures[name] == pytest.approx(value, abs=1e-4), name
