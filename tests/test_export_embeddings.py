"""Exports of metric learning: unit vectors from every format, judged by the neighbours that they find."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from pictures import write_class_pictures
from PIL import Image
from rich.console import Console

from hf_tasks import workflow
from hf_tasks.export.files import write_files
from hf_tasks.export.networks import open_network
from hf_tasks.export.prove import prove_files
from hf_tasks.recipe import load_recipe
from hf_tasks.registry import load_task
from hf_tasks.workflow.exporting import export_saved
from hf_tasks.workflow.prediction import predict_files

FORMATS = ("onnx", "torchscript", "onnx-int8", "torchao-int8")
SILENT = Console(quiet=True)
RECIPE = """\
task: metric-learning
output: {folder}/run
data:
  train: {{folder: {folder}/train}}
  gallery: {{folder: {folder}/base}}
  query: {{folder: {folder}/val}}
model: {{name: test_resnet, pretrained: false, image_size: 32, embedding_size: 16}}
training: {{num_train_epochs: 2, learning_rate: 1.0e-3, dataloader_num_workers: 0, use_cpu: true}}
export: {{formats: [onnx, torchscript, onnx-int8, torchao-int8, triton], tolerance: {{metric_loss: 0.2}}}}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run with its exports, and its pictures."""
    folder = tmp_path_factory.mktemp("embeddings")
    write_class_pictures(folder / "train", seed=0)
    write_class_pictures(folder / "base", classes=4, per_class=6, seed=1)
    write_class_pictures(folder / "val", classes=5, per_class=6, seed=1)
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
    workflow.run(load_recipe(folder / "recipe.yaml"), console=SILENT)
    return folder


@pytest.fixture(scope="module")
def make_plan(folder):
    recipe = load_recipe(folder / "run/recipe.yaml")
    task = load_task(recipe.task)
    splits = task.prepare(recipe.settings)
    return lambda: task.plan_export(recipe.settings, task.load_model(folder / "run/model"), splits)


@pytest.fixture(scope="module")
def parity(folder):
    return json.loads((folder / "run/export/parity.json").read_text())


def test_every_format_is_proved_by_recall_at_1(folder, parity):
    metrics = json.loads((folder / "run/metrics.json").read_text())

    records = {record["format"]: record for record in parity["formats"] if record["format"] != "triton"}

    graphs = ("onnx", "torchscript", "onnx-int8")
    assert set(records) == {*FORMATS, *(f"{name}-end-to-end" for name in graphs)}
    assert all(record["passed"] for record in records.values())
    assert {record["metric"]["name"] for record in records.values()} == {"recall_at_1"}
    assert records["onnx"]["metric"]["before"] == pytest.approx(metrics["cmc_at_1"])
    assert records["onnx"]["agreement"] == 1


def test_metadata_holds_cutoff_and_preparation(folder):
    config = json.loads((folder / "run/model/config.json").read_text())
    model = onnx.load(folder / "run/export/onnx/end_to_end.onnx")

    texts = {entry.key: entry.value for entry in model.metadata_props}

    assert json.loads(texts["hf_tasks.cutoff_distance"]) == pytest.approx(config["cutoff_distance"])
    assert json.loads(texts["hf_tasks.preprocessing"])["crop"] == [32, 32]
    assert [output.name for output in model.graph.output] == ["embedding"]


@pytest.mark.parametrize("format_name", FORMATS)
def test_predict_gives_the_same_vectors_with_an_export(folder, tmp_path, format_name):
    for name, chosen in (("saved", None), ("exported", format_name)):
        predict_files(
            folder / "run", [folder / "val"], tmp_path / f"{name}.jsonl", batch_size=7, with_format=chosen
        )

    saved, found = (
        np.array([json.loads(line)["embedding"] for line in (tmp_path / f"{name}.jsonl").open()])
        for name in ("saved", "exported")
    )

    rounding = {"onnx": 1e-5, "torchscript": 1e-5, "onnx-int8": 0.2, "torchao-int8": 0.05}
    assert np.abs(saved - found).max() < rounding[format_name]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=0.02)


@pytest.mark.parametrize("format_name", ["onnx", "torchscript"])
def test_complete_graphs_embed_pictures_of_odd_sizes_as_predict_does(folder, tmp_path, format_name):
    generator = np.random.default_rng(0)
    for number in range(6):
        size = (*generator.integers(40, 90, 2), 3)
        picture = Image.fromarray(generator.integers(0, 256, size, np.uint8))
        picture.resize((131, 77)).save(tmp_path / f"{number}.jpg")
    predict_files(folder / "run", [tmp_path], tmp_path / "x.jsonl", batch_size=4)
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").open()]
    network = open_network(next((folder / "run/export" / format_name).glob("end_to_end.*")))

    found = np.concatenate([network({"pictures": np.array(Image.open(row["path"]))[None]}) for row in rows])

    assert np.abs(found - np.array([row["embedding"] for row in rows])).max() < 2e-3


@pytest.mark.parametrize("format_name", FORMATS)
def test_weights_of_another_moment_are_caught(make_plan, tmp_path, format_name):
    faulty = make_plan()
    head = faulty.model.embedder.timm_model.get_classifier()
    with torch.no_grad():
        head.weight.copy_(head.weight.roll(1, 0))

    files = write_files(faulty, format_name, tmp_path, metadata={})
    records = prove_files(make_plan(), files, range(54), asked={})

    assert not records[0].passed
    assert records[0].reason


def test_vectors_that_were_not_normalised_are_caught(make_plan, tmp_path):
    plan = make_plan()
    bare = replace(plan, model=plan.model.embedder, output="logits")

    files = write_files(bare, "torchscript", tmp_path, metadata={})
    records = prove_files(plan, files, range(54), asked={})

    assert not records[0].passed


def test_the_figure_of_the_proof_is_that_of_a_plain_search(make_plan):
    plan = make_plan()
    embeddings_ND = np.random.default_rng(0).normal(size=(54, 16))
    embeddings_ND /= np.linalg.norm(embeddings_ND, axis=1, keepdims=True)
    paths = [f"{side}/class{label}" for side, count in (("base", 4), ("val", 5)) for label in range(count)]
    classes = [path.split("/")[1] for path in paths for _ in range(6)]

    right = known = 0
    for query in range(24, 54):
        if classes[query] in classes[:24]:
            nearest = max(range(24), key=lambda row: embeddings_ND[query] @ embeddings_ND[row])
            known += 1
            right += classes[nearest] == classes[query]

    assert plan.measure(embeddings_ND, range(54)) == pytest.approx(right / known)


def test_a_network_without_projection_is_exported_too(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "home", ignore=shutil.ignore_patterns("run"))
    text = RECIPE.replace(", embedding_size: 16", "").format(folder=tmp_path / "home")
    recipe = tmp_path / "home/recipe.yaml"
    recipe.write_text(text[: text.index("export:")], encoding="utf-8")
    run = workflow.run(load_recipe(recipe, ["training.max_steps=1"]), console=SILENT).folder

    export_saved(run, ["onnx", "torchscript"], checkpoint="best", backend=None, console=SILENT)

    records = json.loads((run / "export/parity.json").read_text())["formats"]
    assert all(record["passed"] for record in records)
