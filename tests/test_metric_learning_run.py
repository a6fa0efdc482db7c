"""A whole run on pictures made on the spot: what it leaves, and that others can use it."""

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import run_program
from pictures import write_class_pictures
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification

from hf_tasks import workflow
from hf_tasks.errors import RecipeError
from hf_tasks.metrics.retrieval import LabelledEmbeddings, average_scores, score_queries
from hf_tasks.recipe import load_recipe
from hf_tasks.report.page import figure, percent
from hf_tasks.workflow.prediction import predict_files

RECIPE = """\
task: metric-learning
output: {folder}/run
data:
  train: {{folder: {folder}/train}}
  gallery: {{folder: {folder}/base}}
  query: {{folder: {folder}/val}}
model: {{name: resnet10t, pretrained: false, image_size: 32, embedding_size: 16}}
loss: {{name: arcface, scale: 16}}
sampler: {{classes: 4, pictures: 3}}
cutoff: {{false_accept_rate: 0.2}}
checkpoints: {{keep_best: 5}}
report: {{tensorboard: true, wrong_images: 4}}
training:
  num_train_epochs: 2
  learning_rate: 1.0e-3
  dataloader_num_workers: 0
  use_cpu: true
"""
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run, and its pictures; queries of two classes that the gallery lacks among them."""
    folder = tmp_path_factory.mktemp("metric_learning")
    write_class_pictures(folder / "train", seed=0)
    write_class_pictures(folder / "base", classes=3, per_class=4, seed=1)
    write_class_pictures(folder / "val", classes=5, per_class=3, seed=1)
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
    workflow.run(load_recipe(folder / "recipe.yaml"), console=QUIET)
    return folder


@pytest.fixture(scope="module")
def table(folder):
    return _rows(folder / "run" / "predictions.csv")


def _rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _embeddings(folder, paths):
    """Unit vectors of picture files, with plain transformers alone."""
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    vectors = []
    for path in paths:
        with Image.open(path) as picture, torch.no_grad():
            vectors.append(model(**processor(picture.convert("RGB"), return_tensors="pt")).logits)
    return torch.nn.functional.normalize(torch.cat(vectors))


def test_plain_transformers_give_the_distances_of_the_table(folder, table):
    some = table[::4]

    queries = _embeddings(folder / "run/model", [folder / "val" / row["path"] for row in some])
    couples = _embeddings(folder / "run/model", [folder / "base" / row["couple"] for row in some])

    distances = 1 - (queries * couples).sum(dim=1)
    assert distances.tolist() == pytest.approx([float(row["distance"]) for row in some], abs=1e-5)


def test_the_program_in_the_card_gives_the_embedding(folder, monkeypatch):
    card = (folder / "run/README.md").read_text(encoding="utf-8")
    path = min((folder / "val").glob("*/*.png"))
    program = card.split("```python\n")[1].split("```")[0].replace('"picture.jpg"', repr(str(path)))
    monkeypatch.chdir(folder)

    names = {}
    exec(program, names)

    cosine = torch.cosine_similarity(names["embedding"], _embeddings(folder / "run/model", [path]))
    assert cosine.item() == pytest.approx(1, abs=1e-5)


def test_the_couple_is_the_nearest_gallery_picture(folder, table):
    paths = sorted((folder / "base").glob("*/*.png"))
    gallery = _embeddings(folder / "run/model", paths)

    queries = _embeddings(folder / "run/model", [folder / "val" / row["path"] for row in table])

    for row, cosines in zip(table, queries @ gallery.T, strict=True):
        assert cosines.max() - cosines[paths.index(folder / "base" / row["couple"])] < 1e-5
        assert row["predicted"] == row["couple"].split("/")[0]


def test_mistakes_are_the_rows_of_the_table_that_are_one(folder, table):
    incorrect, uncoordinated = (
        _rows(folder / "run" / f"{name}.csv") for name in ("incorrect", "uncoordinated")
    )

    def by_path(rows):
        return sorted(rows, key=lambda row: row["path"])

    accepted = [row for row in table if row["is_accepted"] == "true"]
    assert by_path(incorrect) == by_path([row for row in accepted if row["predicted"] != row["true"]])
    assert by_path(uncoordinated) == by_path([row for row in table if row["is_accepted"] == "false"])
    assert {row["path"] for row in table if row["is_known"] == "false"} == {
        f"class{label}/{number}.png" for label in (3, 4) for number in range(3)
    }


def test_the_cutoff_is_in_the_model_and_keeps_the_wanted_rate(folder, table):
    config = json.loads((folder / "run/model/config.json").read_text())
    metrics = json.loads((folder / "run/metrics.json").read_text())

    unknown = [float(row["distance"]) for row in table if row["is_known"] == "false"]

    assert config["cutoff_distance"] == metrics["cutoff_distance"]
    assert sum(distance <= config["cutoff_distance"] for distance in unknown) == 1  # 0.2 of 6, rounded down
    assert metrics["false_accept_rate"] == pytest.approx(1 / 6)
    assert (metrics["queries"], metrics["unknown_queries"], metrics["gallery"]) == (15, 6, 12)


def test_the_figures_can_be_counted_from_the_table(folder, table):
    metrics = json.loads((folder / "run/metrics.json").read_text())
    known = [row for row in table if row["is_known"] == "true"]

    assert metrics["cmc_at_1"] == pytest.approx(sum(row["match_rank"] == "1" for row in known) / 9)
    assert metrics["mrr"] == pytest.approx(sum(1 / int(row["match_rank"]) for row in known) / 9)


def test_what_smaller_embeddings_would_cost_is_in_the_figures(folder):
    metrics = json.loads((folder / "run/metrics.json").read_text())

    table = {(row["dimensions"], row["precision"]): row for row in metrics["compression"]}

    assert list(table) == [(16, "fp32"), (16, "fp16"), (16, "int8"), (16, "binary")]
    assert table[16, "fp32"]["recall_at_1"] == metrics["cmc_at_1"]
    assert [row["bytes"] for row in table.values()] == [64, 32, 16, 2]


def test_a_checkpoint_is_a_model_with_its_loss_and_the_model_is_without(folder):
    checkpoint = next((folder / "run/checkpoints").glob("checkpoint-*"))

    loss = load_file(checkpoint / "loss.safetensors")

    assert {name: tuple(value.shape) for name, value in loss.items()} == {"centres": (6, 16)}
    assert AutoModelForImageClassification.from_pretrained(checkpoint).num_labels == 16
    assert not (folder / "run/model/loss.safetensors").exists()
    assert not list((folder / "run/model").glob("*.bin"))


@pytest.mark.parametrize(("name", "kept"), [("run", {"centres"}), ("plain", {"memory", "memory_labels"})])
def test_a_resumed_run_has_the_weights_of_one_that_was_not_interrupted(
    folder, plain_run, tmp_path, name, kept
):
    recipe = load_recipe(folder / name / "recipe.yaml", [f"output={tmp_path}/run"])
    shutil.copytree(folder / name, tmp_path / "run")
    checkpoints = list((tmp_path / "run/checkpoints").glob("checkpoint-*"))
    last = max(checkpoints, key=lambda path: int(path.name.split("-")[1]))
    expected = {name: load_file(last / name) for name in ("model.safetensors", "loss.safetensors")}
    shutil.rmtree(last)

    workflow.run(recipe, resume=True, console=QUIET)

    assert len(checkpoints) == 2
    assert set(expected["loss.safetensors"]) == kept
    for name, tensors in expected.items():
        found = load_file(last / name)
        assert all(torch.equal(found[key], value) for key, value in tensors.items())


def test_evaluating_again_gives_the_same_figures(folder, tmp_path):
    workflow.evaluate(folder / "run", out=tmp_path, console=QUIET)

    again = json.loads((tmp_path / "metrics.json").read_text())
    metrics = json.loads((folder / "run/metrics.json").read_text())
    metrics.pop("training")
    assert again == metrics


def test_predicting_writes_embeddings_and_names_what_is_broken(folder, tmp_path):
    paths = sorted((folder / "val").glob("*/*.png"))[:5]
    (tmp_path / "broken.png").write_bytes(b"no picture")

    done = predict_files(
        folder / "run",
        [*paths, tmp_path / "broken.png"],
        tmp_path / "out.parquet",
        batch_size=2,
    )

    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert done == (5, 1)
    expected = _embeddings(folder / "run/model", paths)
    np.testing.assert_allclose([row["embedding"] for row in rows[:5]], expected, atol=1e-5)
    assert rows[5]["embedding"] is None
    assert "no known picture format" in rows[5]["error"]


def test_a_batch_size_that_is_not_p_times_k_is_refused(folder, tmp_path):
    overrides = [f"output={tmp_path}/other", "training.per_device_train_batch_size=8"]

    with pytest.raises(RecipeError, match=r"found 8 on 1 processes.*sampler.pictures is 4 \* 3 = 12"):
        workflow.check(load_recipe(folder / "recipe.yaml", overrides), console=QUIET)


@pytest.fixture(scope="module")
def plain_run(folder):
    """A run without a projection, whose embeddings are means over a picture and its mirror image."""
    overrides = [
        f"output={folder}/plain",
        "model={name: resnet10t, pretrained: false, image_size: 32, pooling: avgmax}",
        "loss={name: triplet, memory: 20}",
        "flip_average=true",
        "training={max_steps: 2, eval_strategy: steps, eval_steps: 1, save_strategy: steps, save_steps: 1, "
        "learning_rate: 1.0e-3, dataloader_num_workers: 0, use_cpu: true}",
    ]
    workflow.run(load_recipe(folder / "recipe.yaml", overrides), console=QUIET)
    return folder / "plain"


def test_without_a_projection_automodel_gives_the_embedding(folder, plain_run, tmp_path):
    model = AutoModel.from_pretrained(plain_run / "model").eval()
    processor = AutoImageProcessor.from_pretrained(plain_run / "model")

    def embed(paths):
        vectors = []
        for path in paths:
            with Image.open(path) as picture, torch.no_grad():
                pixels = processor(picture.convert("RGB"), return_tensors="pt")["pixel_values"]
                both = [model(view).pooler_output for view in (pixels, pixels.flip(-1))]
                units = [torch.nn.functional.normalize(vector) for vector in both]
                vectors.append(sum(units))
        labels = np.array([int(path.parent.name[-1]) for path in paths])
        return LabelledEmbeddings(torch.cat(vectors), labels)

    queries, gallery = (embed(sorted((folder / part).glob("*/*.png"))) for part in ("val", "base"))
    figures = average_scores(score_queries(queries, gallery))

    metrics = json.loads((plain_run / "metrics.json").read_text())
    assert {name: metrics[name] for name in figures} == pytest.approx(figures, abs=1e-6)
    # The cut-off was fitted to averaged embeddings, so those are what new pictures are answered with.
    one = sorted((folder / "val").glob("*/*.png"))[:1]
    predict_files(plain_run, one, tmp_path / "one.parquet", batch_size=1)
    expected = torch.nn.functional.normalize(queries.embeddings_ND[:1])
    np.testing.assert_allclose(
        pq.read_table(tmp_path / "one.parquet")["embedding"].to_pylist(), expected, atol=1e-6
    )


def test_the_projector_of_tensorboard_has_the_gallery_with_its_classes(folder):
    [place] = (folder / "run/logs").glob("*/default")

    points = np.loadtxt(place / "tensors.tsv")
    classes = (place / "metadata.tsv").read_text().split()

    assert points.shape == (12, 16)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-5)
    assert sorted(set(classes)) == ["class0", "class1", "class2"]
    assert "tensors.tsv" in (folder / "run/logs/projector_config.pbtxt").read_text()


def test_the_page_shows_queries_beside_what_they_find(folder, table):
    page = (folder / "run/report.html").read_text(encoding="utf-8")

    known = [row for row in table if row["is_known"] == "true"]
    first = sum(row["predicted"] == row["true"] for row in known)
    assert f"of {len(known)} queries find their class first" in page
    assert percent(first / len(known)) in page
    assert page.count('<div class="gallery found"') >= 4
    assert "Unknown, but accepted" in page or "Right, the narrowest first" in page


def test_the_page_shows_what_smaller_embeddings_would_cost(folder):
    metrics = json.loads((folder / "run/metrics.json").read_text())

    page = (folder / "run/report.html").read_text(encoding="utf-8")

    section = page.split('<section id="compression"')[1].split("</section>")[0]
    for row in metrics["compression"]:
        assert f">{row['precision']}<" in section
        assert f">{percent(row['recall_at_1'])}<" in section


def test_intervals_hold_the_figures(folder):
    metrics = json.loads((folder / "run/metrics.json").read_text())

    intervals = metrics["intervals"]

    assert {"cmc_at_1", "map_at_r", "mrr", "wrong", "true_accept_rate", "false_accept_rate"} <= set(intervals)
    assert all(low <= metrics[name] <= high for name, (low, high) in intervals.items())


def test_the_program_compares_two_runs_by_their_queries(folder, table, plain_run):
    done = run_program("compare", folder / "run", plain_run, folder=folder)

    after = _rows(plain_run / "predictions.csv")
    was_right, is_right = (np.array([_is_right(row) for row in rows]) for rows in (table, after))
    page = (plain_run / "compared_with_run.html").read_text(encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert f"fixed: {(~was_right & is_right).sum()}\n" in done.stdout
    assert f"broken: {(was_right & ~is_right).sum()}\n" in done.stdout
    assert "model.pooling" in done.stdout
    for run in (folder / "run", plain_run):
        metrics = json.loads((run / "metrics.json").read_text())
        assert f">{figure(metrics['cmc_at_1'])}<" in page
        assert f">{figure(metrics['mrr'])}<" in page
    assert page.count("data:image/webp") == (was_right != is_right).sum()
    refused = [row["is_accepted"] == "false" for row in (*table, *after)]
    changed = np.flatnonzero(np.tile(was_right != is_right, 2) & refused)
    assert page.count(", refused</span>") == len(changed)


def _is_right(row):
    is_accepted = row["is_accepted"] == "true"
    return is_accepted and row["predicted"] == row["true"] if row["is_known"] == "true" else not is_accepted
