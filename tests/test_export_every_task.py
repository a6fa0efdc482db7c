"""What every task with exports must do alike: pruned weights, fp16, the exporter of torch, MLflow, pages."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import write_class_pictures
from rich.console import Console
from test_export_texts import write_encoder, write_pairs

from hf_tasks import workflow
from hf_tasks.errors import ExportError, UserError
from hf_tasks.export.files import write_files
from hf_tasks.export.prove import prove_files
from hf_tasks.recipe import load_recipe
from hf_tasks.registry import load_task
from hf_tasks.workflow.exporting import require_exports
from hf_tasks.workflow.prediction import predict_files

SILENT = Console(quiet=True)
SHARED = """\
training: {max_steps: 4, eval_steps: 2, save_steps: 2, eval_strategy: steps, save_strategy: steps,
  per_device_train_batch_size: 8, dataloader_num_workers: 0, use_cpu: true}
pruning: {amount: 0.5}
"""
REPORT = "report: {mlflow: {experiment: all}}\n"
EXPORTS = """\
export: {formats: [onnx, onnx-fp16, torchscript, triton], tolerance: {metric_loss: 0.2}}
"""
PICTURES = """\
task: metric-learning
output: {folder}/metric-learning
data: {{train: {{folder: {folder}/train}}, validation: {{folder: {folder}/val}}}}
model: {{name: test_resnet, pretrained: false, image_size: 32, embedding_size: 16}}
flip_average: true
"""
TEXTS = """\
task: siamese
output: {folder}/siamese
data: {{train: {{table: {folder}/train.csv}}, validation: {{table: {folder}/test.csv}}}}
model: {{name: {folder}/bert}}
loss: {{name: cosent}}
"""
LANGUAGE = """\
task: language-model
output: {folder}/language
data: {{train: {{text: {folder}/text.txt}}, validation: {{text: {folder}/text.txt}}}}
model: {{from_scratch: {{vocab_size: 300, hidden_size: 16, layers: 1, heads: 2, block_size: 16}}}}
"""
TASKS = ("metric-learning", "siamese")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data of all tasks, and a finished, pruned and exported run of each that has exports."""
    folder = tmp_path_factory.mktemp("tasks")
    write_class_pictures(folder / "train", seed=0)
    write_class_pictures(folder / "val", classes=4, per_class=6, seed=1)
    write_pairs(folder / "train.csv", 32, seed=0)
    write_pairs(folder / "test.csv", 40, seed=1)
    write_encoder(folder / "bert")
    words = ["the", "sun", "and", "the", "rain", "came", "by", "turns", "over", "hills"]
    (folder / "text.txt").write_text("\n\n".join(" ".join(words[i:] + words[:i]) for i in range(10)) * 6)
    for text, report in ((PICTURES, REPORT), (TEXTS, "")):
        recipe = folder / "recipe.yaml"
        recipe.write_text(text.format(folder=folder) + SHARED + EXPORTS + report, "utf-8")
        workflow.run(load_recipe(recipe), console=SILENT)
    return folder


def write_language_recipe(folder, further=""):
    recipe = folder / "language.yaml"
    recipe.write_text(LANGUAGE.format(folder=folder) + SHARED + further, "utf-8")
    return load_recipe(recipe)


def records_of(run):
    return json.loads((run / "export/parity.json").read_text())["formats"]


@pytest.mark.parametrize("task", TASKS)
def test_a_pruned_run_tells_its_sparsity_and_exports_with_parity(folder, task):
    metrics = json.loads((folder / task / "metrics.json").read_text())

    records = records_of(folder / task)

    assert metrics["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert {"onnx", "onnx-fp16", "torchscript", "triton"} <= {record["format"] for record in records}
    assert all(record["passed"] for record in records)


def test_a_language_model_is_pruned_and_tells_its_sparsity(folder):
    run = workflow.run(write_language_recipe(folder), console=SILENT)

    assert json.loads(run.metrics.read_text())["sparsity"] == pytest.approx(0.5, abs=0.01)


def test_a_task_without_exports_refuses_the_section(folder):
    recipe = write_language_recipe(folder, "export: [onnx]\n")
    task = replace(load_task(recipe.task), plan_export=None)

    with pytest.raises(ExportError, match="language-model has no exports; leave the section out"):
        require_exports(recipe, task)


def test_a_model_without_a_layer_to_prune_is_refused(folder):
    recipe = folder / "static.yaml"
    text = TEXTS.replace("name: {folder}/bert", "static: {{embedding_size: 16, vocab_size: 400}}")
    recipe.write_text(text.format(folder=folder).replace("/siamese", "/static") + SHARED, "utf-8")

    with pytest.raises(UserError, match="pruning: this model has no convolution or linear layer"):
        workflow.run(load_recipe(recipe), console=SILENT)


@pytest.mark.parametrize("task", TASKS)
def test_the_report_and_the_card_show_the_proof(folder, task):
    names = {record["format"] for record in records_of(folder / task)}

    page, card = ((folder / task / name).read_text() for name in ("report.html", "README.md"))

    assert all(name in page for name in names)
    assert all(f"| {name} |" in card for name in names)


def test_mlflow_has_the_files_and_their_proof(folder):
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("all").experiment_id
    (run,) = client.search_runs([experiment], "attributes.run_name = 'metric-learning'")

    parity = Path(client.download_artifacts(run.info.run_id, "export/parity.json", folder))
    files = {item.path for item in client.list_artifacts(run.info.run_id, "export/onnx")}

    assert json.loads(parity.read_text())["formats"] == records_of(folder / "metric-learning")
    assert "export/onnx/model.onnx" in files


@pytest.mark.parametrize("format_name", ["onnx", "torchscript"])
def test_the_mean_with_the_mirror_image_is_in_the_export(folder, tmp_path, format_name):
    run = folder / "metric-learning"
    for name, chosen in (("saved", None), ("exported", format_name)):
        predict_files(run, [folder / "val"], tmp_path / f"{name}.jsonl", batch_size=5, with_format=chosen)

    saved, found = (
        np.array([json.loads(line)["embedding"] for line in (tmp_path / f"{name}.jsonl").open()])
        for name in ("saved", "exported")
    )

    assert json.loads((run / "model/config.json").read_text())["flip_average"] is True
    np.testing.assert_allclose(found, saved, atol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_the_exporter_of_torch_gives_the_same_network(folder, tmp_path, task):
    pytest.importorskip("onnxscript")
    recipe = load_recipe(folder / task / "recipe.yaml")
    found = load_task(recipe.task)
    model, splits = found.load_model(folder / task / "model"), found.prepare(recipe.settings)
    plan = found.plan_export(recipe.settings, model, splits)

    for part, its_plan in {"": plan, **plan.further}.items():
        files = write_files(its_plan, "onnx", tmp_path, metadata={}, backend="torch", part=part)
        records = prove_files(its_plan, files, range(its_plan.rows), asked={})
        assert [record.reason for record in records] == [None] * len(files)


def test_a_served_text_may_be_of_any_length(folder):
    configs = [path.read_text() for path in (folder / "siamese/export/triton").glob("siamese-*/config.pbtxt")]

    assert len(configs) == 6
    for text in configs:
        inputs = text[text.index("input [") : text.index("output [")]
        assert inputs.count("dims: [ -1 ]") == inputs.count("name:") > 0
