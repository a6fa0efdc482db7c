"""Every shipped recipe is run; those for data of one's own on the digits, for two steps."""

import json

import pytest
import yaml
from conftest import ROOT, run_program

from hf_tasks.data.samples import write_digits_retrieval
from hf_tasks.recipe import load_recipe, recipe_schema

RECIPES = sorted((ROOT / "recipes").glob("*/*.yaml"))
SMALL = ["model.name=resnet10t", "model.pretrained=false", "model.image_size=32", "augmentation=light"]
TABLES = [
    "data.train={table: data/digits/train_metadata.csv}",
    "data.validation={table: data/digits/test_metadata.csv}",
]
ON_DIGITS = {
    "multiclass": TABLES,
    "multilabel": [
        *(table.replace("digits/", "digits_multilabel/") for table in TABLES),
        "data.columns.labels=[even, prime, has_a_loop]",
    ],
    "delayed_cosine": ["data.train={folder: data/digits/train}"],
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_opens_with_its_schema_title_and_launch_line(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    recipe = load_recipe(path)

    assert lines[0] == f"# yaml-language-server: $schema={recipe.task}.schema.json"
    assert lines[1].startswith("# ")
    assert any(line.startswith(f"# hf-tasks train recipes/{path.parent.name}/{path.name}") for line in lines)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_nothing_that_is_the_default(path):
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    properties = recipe_schema(written["task"])["properties"]

    repeated = [key for key, value in written.items() if value == properties[key].get("default", "")]

    assert repeated == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_DIGITS)
def test_a_recipe_for_own_data_runs_on_the_digits(name, digits):
    path = ROOT / f"recipes/image_classification/{name}.yaml"

    done = run_program("train", path, *SMALL, *ON_DIGITS[name], "--check", folder=digits)

    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_digits_recipe_decides_97_of_100_right(digits_run):
    assert json.loads((digits_run / "metrics.json").read_text())["accuracy"] >= 0.97


@pytest.mark.slow
def test_the_multilabel_recipe_reaches_a_mean_average_precision_of_0_97(multilabel_run):
    assert json.loads((multilabel_run / "metrics.json").read_text())["average_precision"] >= 0.97


@pytest.mark.slow
def test_the_retrieval_recipe_finds_90_of_100_digits_that_it_was_not_trained_on(tmp_path):
    write_digits_retrieval(tmp_path / "data/digits-retrieval")

    done = run_program("train", ROOT / "recipes/metric_learning/arcface.yaml", folder=tmp_path)

    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "runs/digits-retrieval/metrics.json").read_text())
    assert metrics["cmc_at_1"] >= 0.90
