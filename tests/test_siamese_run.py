"""Whole runs on text pairs: exact when resumed, equal over processes, and opened by sentence-transformers."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.csv
import pytest
import torch
from conftest import run_program
from forked_program import call_in_group
from rich.console import Console
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sklearn.metrics import average_precision_score
from transformers import set_seed

from hf_tasks import workflow
from hf_tasks.artifacts import Artifacts
from hf_tasks.errors import ModelError
from hf_tasks.recipe import load_recipe
from hf_tasks.recipe.arguments import build_arguments
from hf_tasks.registry import load_task
from hf_tasks.report.page import figure, percent
from hf_tasks.tasks.siamese.model import load_pair_model, open_encoder
from hf_tasks.tasks.siamese.settings import Model
from hf_tasks.workflow.prediction import predict_files

WORDS = [
    "red", "green", "blue", "yellow", "apple", "pear", "plum", "cherry",
    "runs", "jumps", "sleeps", "eats", "quickly", "slowly", "never", "often",
]  # fmt: skip
RECIPE = """\
task: siamese
output: {output}
data:
  train: {{table: {folder}/train.csv}}
  validation: {{table: {folder}/test.csv}}
model: {{static: {{embedding_size: 16, vocab_size: 400}}}}
loss: {{name: {loss}}}
training:
  num_train_epochs: 2
  per_device_train_batch_size: 8
  learning_rate: 0.02
  eval_strategy: steps
  eval_steps: 5
  save_strategy: steps
  save_steps: 5
  use_cpu: true
checkpoints: {{keep_best: 20}}
"""


def _write_pairs(path, count, seed):
    generator = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text_1", "text_2", "label"))
        for row in range(count):
            words = generator.choice(WORDS, 5, replace=False)
            others = generator.permutation(words) if row % 2 else generator.choice(WORDS, 5, replace=False)
            writer.writerow((" ".join(words), " ".join(others), row % 2))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Tables of pairs: true ones hold the same words in another order."""
    folder = tmp_path_factory.mktemp("siamese")
    _write_pairs(folder / "train.csv", 64, seed=0)
    _write_pairs(folder / "test.csv", 30, seed=1)
    return folder


def _recipe(home, name, loss, *overrides):
    path = home / f"{name}.yaml"
    path.write_text(RECIPE.format(output=home / name, folder=home, loss=loss))
    return load_recipe(path, overrides)


@pytest.fixture(scope="module")
def head_run(home):
    """A finished run with the difference head."""
    recipe = _recipe(home, "head", "difference-head", "report.tensorboard=true")
    return workflow.run(recipe, console=Console(quiet=True))


@pytest.fixture(scope="module")
def unevaluated_run(home):
    """A finished run that was not measured before its end."""
    recipe = _recipe(
        home, "no-evaluation", "contrastive", "training.eval_strategy='no'", "training.save_strategy='no'",
        "training.load_best_model_at_end=false", "training.max_steps=2",
    )  # fmt: skip
    return workflow.run(recipe, console=Console(quiet=True))


def test_a_run_killed_after_five_steps_ends_with_the_same_weights_head_and_threshold(home, head_run):
    resumed = Artifacts(home / "resumed")
    recipe = _recipe(home, "resumed", "difference-head")
    shutil.copytree(head_run.folder, resumed.folder)
    shutil.rmtree(resumed.model)
    for checkpoint in resumed.checkpoints.iterdir():
        if checkpoint.name != "checkpoint-5":
            shutil.rmtree(checkpoint)

    workflow.run(recipe, resume=True, console=Console(quiet=True))

    assert (resumed.checkpoints / "checkpoint-15").is_dir()
    for name in ("model.safetensors", "difference_head.safetensors", "pairs.json", "tokenizer.json"):
        assert (resumed.model / name).read_bytes() == (head_run.model / name).read_bytes(), name


@pytest.mark.slow
def test_the_saved_model_opens_with_sentence_transformers_alone(head_run):
    program = (
        "import sys; from sentence_transformers import SentenceTransformer as S; "
        "m = S(sys.argv[1]); assert m.encode(['red apple']).shape == (1, 16); "
        "sys.exit('hf_tasks' in sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(head_run.model)], cwd=head_run.folder, check=False
    )

    assert done.returncode == 0


def test_metrics_are_those_of_the_table_of_predictions(head_run):
    table = pyarrow.csv.read_csv(head_run.predictions).to_pydict()
    metrics = json.loads(head_run.metrics.read_text())

    labels, scores = np.array(table["label"]), np.array(table["score"])
    assert metrics["average_precision"] == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
    assert table["predicted"] == (scores >= metrics["threshold"]).astype(int).tolist()
    assert metrics["accuracy"] == np.mean(labels == table["predicted"])


def test_the_threshold_is_stored_and_decides_when_predicting(head_run, home, tmp_path):
    done, broken = predict_files(head_run.folder, [home / "test.csv"], tmp_path / "out.csv", batch_size=7)

    found = pyarrow.csv.read_csv(tmp_path / "out.csv").to_pydict()
    wanted = pyarrow.csv.read_csv(head_run.predictions).to_pydict()
    assert (done, broken) == (30, 0)
    np.testing.assert_allclose(found["score"], wanted["score"], atol=1e-6)
    assert found["predicted"] == wanted["predicted"]


def test_a_pair_without_a_text_gets_a_row_with_its_error(head_run, tmp_path):
    (tmp_path / "pairs.csv").write_text("text_1,text_2\nred,blue\n,blue\n")

    done, broken = predict_files(head_run.folder, [tmp_path], tmp_path / "out.jsonl", batch_size=8)

    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (done, broken) == (1, 1)
    assert rows[0]["error"] is None
    assert "row 2: a text is missing" in rows[1]["error"]


def _train_and_measure(path, overrides):
    """Each process saves its weights and the figures that it knows."""
    recipe = load_recipe(path, overrides)
    task = load_task(recipe.task)
    defaults = task.training_defaults(recipe.settings)
    arguments = build_arguments(recipe, arguments_class=task.arguments_class, defaults=defaults)
    splits = task.prepare(recipe.settings)
    set_seed(arguments.seed)
    model = task.build_model(recipe.settings, None, splits)
    trainer = task.build_trainer(recipe.settings, model, splits, arguments, False)
    trainer.train()
    predictions = task.compute_predictions(trainer, splits)
    figures = [predictions.metrics[name] for name in ("average_precision", "f1", "threshold")]
    recipe.output.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach() for name, value in model.head.named_parameters()}
    tensors["embedding"] = model.encoder.state_dict()["0.embedding.weight"]
    tensors["figures"] = torch.tensor(figures, dtype=torch.float64)
    save_file(tensors, recipe.output / f"{arguments.process_index}.safetensors")


@pytest.mark.slow
def test_two_processes_train_and_measure_as_one_does(home):
    _recipe(home, "processes", "difference-head")
    path = home / "processes.yaml"
    shared = ["training.save_strategy='no'", "training.load_best_model_at_end=false"]
    alone = [f"output={home}/one", *shared]
    halves = ["training.per_device_train_batch_size=4", f"output={home}/two", *shared]

    call_in_group(_train_and_measure, path, alone, log=home / "one.log", processes=1)
    call_in_group(_train_and_measure, path, halves, log=home / "two.log", processes=2)

    one, first, second = (
        load_file(home / name) for name in ("one/0.safetensors", "two/0.safetensors", "two/1.safetensors")
    )
    for name, wanted in one.items():
        torch.testing.assert_close(first[name], second[name], atol=0, rtol=0)
        # Adam divides by the size of a gradient, so a rounding of nearly nothing may move a weight a little.
        torch.testing.assert_close(first[name], wanted, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "loss", ["cosine-similarity", "contrastive", "online-contrastive", "cosent", "multiple-negatives"]
)
def test_every_loss_trains_and_tells_true_pairs(home, loss):
    recipe = _recipe(home, f"loss-{loss}", loss, "training.max_steps=10")

    artifacts = workflow.run(recipe, console=Console(quiet=True))

    # Same words against other words: even a start from TF-IDF tells them apart.
    assert json.loads(artifacts.metrics.read_text())["average_precision"] > 0.9


def test_retrieval_figures_of_pairs_without_labels(home):
    recipe = _recipe(
        home, "pairs", "multiple-negatives", "data.columns={label: null}", "training.max_steps=5"
    )

    artifacts = workflow.run(recipe, console=Console(quiet=True))

    metrics = json.loads(artifacts.metrics.read_text())
    assert 0 < metrics["recall_at_1"] <= metrics["mrr"] <= metrics["recall_at_10"] <= 1


def test_a_run_without_evaluations_has_a_threshold(unevaluated_run):
    saved, metrics = load_pair_model(unevaluated_run.model), json.loads(unevaluated_run.metrics.read_text())
    assert saved.threshold == metrics["threshold"]


def test_an_earlier_run_is_trained_on_with_its_head(home, head_run):
    recipe = _recipe(home, "continued", "difference-head", f"model={{name: {head_run.folder}}}")
    task = load_task("siamese")

    weights = task.open_weights(recipe.settings)
    model = task.build_model(recipe.settings, weights, task.prepare(recipe.settings))

    saved = load_file(head_run.model / "difference_head.safetensors")
    torch.testing.assert_close(dict(model.head.state_dict()), saved, atol=0, rtol=0)


def test_a_model_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"model\.name: cannot open '/nowhere/model'"):
        open_encoder(Model(name="/nowhere/model"))


def test_the_page_lists_the_pairs_that_the_threshold_gets_wrong(head_run):
    table = pyarrow.csv.read_csv(head_run.predictions).to_pylist()
    missed = [row for row in table if row["label"] == 1 and row["predicted"] == 0]
    alarms = [row for row in table if row["label"] == 0 and row["predicted"] == 1]

    page = head_run.report.read_text(encoding="utf-8")

    for title, rows in (("The same, but missed", missed), ("Called the same, but are not", alarms)):
        assert (f"{title} ({len(rows)})" in page) == bool(rows)
        assert all(row["text_1"] in page and row["text_2"] in page for row in rows)
    assert "Nearly the same" in page
    assert "threshold:" in page


def test_intervals_hold_the_figures_and_stand_in_the_page(head_run):
    metrics = json.loads(head_run.metrics.read_text())

    page = head_run.report.read_text(encoding="utf-8")

    names = ("average_precision", "roc_auc", "accuracy", "precision", "recall", "f1")
    assert set(metrics["intervals"]) == set(names)
    for name, (low, high) in metrics["intervals"].items():
        assert low <= metrics[name] <= high
        assert f"{percent(low)} to {percent(high)}" in page


def test_the_program_compares_two_runs_by_their_pairs(head_run, unevaluated_run):
    done = run_program("compare", head_run.folder, unevaluated_run.folder, folder=head_run.folder)

    before, after = (pyarrow.csv.read_csv(run.predictions).to_pandas() for run in (head_run, unevaluated_run))
    was_right, is_right = (table["predicted"] == table["label"] for table in (before, after))
    page = (unevaluated_run.folder / "compared_with_head.html").read_text(encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert f"fixed: {(~was_right & is_right).sum()}\n" in done.stdout
    assert f"broken: {(was_right & ~is_right).sum()}\n" in done.stdout
    assert "loss.name" in done.stdout
    for run in (head_run, unevaluated_run):
        metrics = json.loads(run.metrics.read_text())
        for name in ("accuracy", "precision", "recall", "f1", "average_precision", "roc_auc"):
            assert f">{figure(metrics[name])}<" in page


def test_the_projector_of_tensorboard_has_each_text_once(head_run):
    table = pyarrow.csv.read_csv(head_run.predictions).to_pydict()

    [place] = (head_run.folder / "logs").glob("*/default")

    points, texts = np.loadtxt(place / "tensors.tsv"), (place / "metadata.tsv").read_text().splitlines()
    encoder = SentenceTransformer(str(head_run.model))
    assert sorted(texts) == sorted({*table["text_1"], *table["text_2"]})
    np.testing.assert_allclose(points, encoder.encode(texts), atol=1e-5)
