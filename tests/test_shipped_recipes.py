"""Every shipped recipe is run; those for data of one's own on the digits, for two steps."""

import json

import pytest
import yaml
from conftest import ROOT, run_program

from hf_tasks.data.samples import write_digits_retrieval
from hf_tasks.recipe import load_recipe, recipe_schema
from hf_tasks.workflow import check, run

RECIPES = sorted(set((ROOT / "recipes").glob("*/*.yaml")) - set((ROOT / "recipes/accelerate").iterdir()))
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


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A folder with tables of pairs, a text, and a small run that stands for a model of the Hub."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "data/text").mkdir(parents=True)
    (folder / "data/text_pairs").mkdir()
    lines = [f"the {row}th day had {row % 3} hours of rain and {row % 7} of sun" for row in range(80)]
    pairs = [f"{row} hours,{row + row % 2} hours,{1 - row % 2}" for row in range(80)]
    for name in ("train", "test"):
        (folder / f"data/text/{name}.txt").write_text("\n".join(lines))
        (folder / f"data/text_pairs/{name}.csv").write_text("\n".join(["text_1,text_2,label", *pairs]))
    (folder / "data/novels.txt").write_text("\n\n".join(lines))
    (folder / "data/stories.csv").write_text("\n".join(["story_1,story_2,label", *pairs]))
    small = ["training.max_steps=2", "model.from_scratch={hidden_size: 16, layers: 1, heads: 2}"]
    run(load_recipe(ROOT / "recipes/language_model/docstrings.yaml", [
        *small, f"output={folder}/runs/small", f"data.train.text={folder}/data/text/train.txt",
        f"data.validation.text={folder}/data/text/test.txt",
    ]))  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("siamese/docstring_pairs", []),
        ("siamese/stories", ["model={name: runs/small, max_length: 64}"]),
        ("language_model/docstrings", ["model.from_scratch={hidden_size: 16, layers: 1, heads: 2}"]),
        ("language_model/masked", ["model.from_scratch={hidden_size: 16, layers: 1, heads: 2}"]),
        ("language_model/fine_tune", ["model={name: runs/small}"]),
    ],
)
def test_a_recipe_for_texts_passes_its_check(name, overrides, texts, monkeypatch):
    monkeypatch.chdir(texts)

    check(load_recipe(ROOT / f"recipes/{name}.yaml", [*overrides, "training.use_cpu=true"]))

    assert not list((texts / "runs").glob(".*"))


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
