"""What a recipe may say, what it becomes, and its schema; test_recipe_mistakes.py has the mistakes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hf_tasks.errors import RecipeError
from hf_tasks.recipe import load_recipe, recipe_schema
from hf_tasks.recipe.arguments import build_arguments
from hf_tasks.recipe.check import find_problems
from hf_tasks.recipe.document import dump_document, parse_document

GOOD = """\
# yaml-language-server: $schema=image-classification.json
task: image-classification
output: runs/flowers

data:
  train: {table: data/train.csv, images: data/images/train}
  validation: {table: data/test.csv}
  columns: {image: image_path, label: label}

model: {name: resnet18.a1_in1k, image_size: 224}
loss: {name: cross-entropy, label_smoothing: 0.1}
early_stopping: {patience: 3}

training:
  num_train_epochs: 10
  learning_rate: 1e-3
"""


@pytest.fixture
def recipe_file(tmp_path, monkeypatch):
    """Writes a recipe as recipe.yaml of the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        Path("recipe.yaml").write_text(text, encoding="utf-8")
        return Path("recipe.yaml")

    return write


def test_a_good_recipe_becomes_values_of_the_right_types(recipe_file):
    recipe = load_recipe(recipe_file(GOOD))

    assert recipe.task == "image-classification"
    assert recipe.output == Path("runs/flowers")
    assert recipe.training == {"num_train_epochs": 10.0, "learning_rate": 0.001}
    assert recipe.checkpoints.keep_best == 1
    assert (recipe.early_stopping.patience, recipe.early_stopping.threshold) == (3, 0.0)
    assert recipe.settings.data.train.images == "data/images/train"
    assert recipe.settings.loss.label_smoothing == 0.1


def test_an_override_takes_the_whole_place_of_a_value(recipe_file):
    overrides = ["data.validation={folder: val}", "model.image_size=96", "checkpoints.keep_best=2"]

    recipe = load_recipe(recipe_file(GOOD), overrides)

    assert recipe.settings.data.validation.folder == "val"
    assert recipe.settings.model.image_size == 96
    assert recipe.checkpoints.keep_best == 2


def test_an_override_mends_a_mistake_of_the_file(recipe_file):
    path = recipe_file(GOOD.replace("224", "big"))

    recipe = load_recipe(path, ["model.image_size=64"])

    assert recipe.settings.model.image_size == 64


def test_references_are_followed(recipe_file, monkeypatch):
    monkeypatch.setenv("FLOWERS", "/mnt/flowers")
    text = GOOD.replace("data/train.csv", "'${oc.env:FLOWERS}/${data.columns.label}.csv'")

    recipe = load_recipe(
        recipe_file(text), ["training.seed=${model.image_size}", "augmentation=${oc.env:NO_SUCH_NAME,hard}"]
    )

    assert recipe.settings.data.train.table == "/mnt/flowers/label.csv"
    assert recipe.training["seed"] == 224
    assert recipe.settings.augmentation == "hard"


def test_the_text_of_a_recipe_is_the_same_recipe(recipe_file, monkeypatch):
    monkeypatch.setenv("SEED", "7")
    monkeypatch.setenv("SECRET_NAME", "hunter2")
    overrides = [
        "training.seed=${oc.env:SEED}",
        "training.run_name=${oc.env:SECRET_NAME}",
        "augmentation='1e-3'",
    ]
    recipe = load_recipe(recipe_file(GOOD), overrides)

    again = load_recipe(recipe_file(recipe.text))

    assert again == recipe
    assert (again.training["seed"], again.settings.augmentation) == (7, "1e-3")
    assert again.training["run_name"] == "hunter2"
    assert "hunter2" not in recipe.text
    assert "language-server" not in recipe.text


def test_dates_clock_times_and_octal_numbers_stay_text():
    document = parse_document("[2024-01-31, 12:30, 010, 1_000, 1e-3, 0.5, off, '7', -.inf, ~]")

    assert document.values == [
        "2024-01-31",
        "12:30",
        "010",
        1000,
        0.001,
        0.5,
        False,
        "7",
        float("-inf"),
        None,
    ]
    assert parse_document(dump_document({"a": document.values})).values == {"a": document.values}


def test_a_faulty_recipe_and_a_schema_need_no_torch(recipe_file):
    path = recipe_file(GOOD.replace("224", "big"))
    program = f"""
import sys
from hf_tasks.errors import RecipeError
from hf_tasks.recipe import load_recipe, recipe_schema
recipe_schema("image-classification")
try:
    load_recipe({str(path)!r}, ["model.image_size=big"])
except RecipeError as error:
    print(error)
print(sorted({{"torch", "transformers", "datasets", "timm"}} & set(sys.modules)))
"""

    lines = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert lines.splitlines()[0].startswith("override 'model.image_size=big': model.image_size: found 'big'")
    assert lines.splitlines()[-1] == "[]"


def test_the_schema_describes_common_task_and_training_keys():
    schema = recipe_schema("image-classification")

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"task", "output", "data", "model"}
    assert list(schema["properties"])[:5] == ["task", "output", "training", "checkpoints", "early_stopping"]
    training = schema["$defs"]["Training"]
    assert training["additionalProperties"] is False
    assert training["properties"]["eval_strategy"]["enum"] == ["no", "steps", "epoch"]
    assert "description" in training["properties"]["learning_rate"]
    assert json.loads(json.dumps(schema)) == schema


def test_the_schema_fits_a_good_recipe_and_not_a_bad_one():
    schema = recipe_schema("image-classification")
    good = parse_document(GOOD).values
    bad = {**good, "loss": "cross-entropy"}

    assert find_problems(schema, good, written=good, owned={}) == []
    assert [problem.path for problem in find_problems(schema, bad, written=bad, owned={})] == [("loss",)]


def test_a_schema_of_an_unknown_task_names_the_nearest():
    expected = (
        "^task: found 'image-classificaton', wanted 'image-classification'.*; "
        r"did you mean 'image-classification'\?$"
    )

    with pytest.raises(RecipeError, match=expected):
        recipe_schema("image-classificaton")


def test_arguments_are_the_defaults_under_the_recipe(recipe_file):
    from transformers import TrainingArguments

    recipe = load_recipe(recipe_file(GOOD), ["training.use_cpu=true"])

    arguments = build_arguments(
        recipe, arguments_class=TrainingArguments, defaults={"learning_rate": 1.0, "weight_decay": 0.5}
    )

    assert arguments.output_dir == str(Path("runs/flowers/checkpoints"))
    assert (arguments.learning_rate, arguments.weight_decay) == (0.001, 0.5)


def test_fields_that_do_not_go_together_are_a_recipe_error(recipe_file):
    from transformers import TrainingArguments

    recipe = replace(load_recipe(recipe_file(GOOD)), training={"warmup_steps": -1, "use_cpu": True})

    with pytest.raises(RecipeError, match=r"^recipe\.yaml: training: .*warmup_steps"):
        build_arguments(recipe, arguments_class=TrainingArguments, defaults={})
