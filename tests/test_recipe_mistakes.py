"""Every kind of mistake in a recipe, with its full text."""

from pathlib import Path

import pytest

from hf_tasks.errors import RecipeError
from hf_tasks.recipe import load_recipe
from hf_tasks.recipe.document import MAX_BYTES
from hf_tasks.registry import TASKS

TASK_NAMES = " or ".join(", ".join(map(repr, TASKS)).rsplit(", ", 1))
"""As messages list them."""

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
MODEL = "model: {name: resnet18.a1_in1k, image_size: 224}"
LOSS = "loss: {name: cross-entropy, label_smoothing: 0.1}"


@pytest.fixture
def recipe_file(tmp_path, monkeypatch):
    """Writes a recipe as recipe.yaml of the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        Path("recipe.yaml").write_text(text, encoding="utf-8")
        return Path("recipe.yaml")

    return write


def problems_of(path, *overrides):
    with pytest.raises(RecipeError, match=r"\S") as caught:
        load_recipe(path, overrides)
    return list(caught.value.problems)


MISTAKES = [
    (
        "learning_rate",
        "learning_rat",
        "16: training.learning_rat: unknown key, did you mean 'learning_rate'?",
    ),
    ("1e-3", "fast", "16: training.learning_rate: found 'fast', wanted a number of at least 0"),
    ("1e-3", "-1", "16: training.learning_rate: found -1, wanted a number of at least 0"),
    ("1e-3", ".nan", "16: training.learning_rate: found nan, wanted a number of at least 0"),
    ("1e-3", "true", "16: training.learning_rate: found true, wanted a number of at least 0"),
    (
        "learning_rate: 1e-3",
        "eval_strategy: no",
        "16: training.eval_strategy: found false, wanted 'no', 'steps' or 'epoch'; put it in quotes",
    ),
    (
        "learning_rate: 1e-3",
        "logging_strategy: step",
        "16: training.logging_strategy: found 'step', wanted 'no', 'steps' or 'epoch'; did you mean 'steps'?",
    ),
    (
        "learning_rate: 1e-3",
        "save_total_limit: 3",
        "16: training.save_total_limit: not set here; use checkpoints.keep_best",
    ),
    ("224", "big", "10: model.image_size: found 'big', wanted a whole number from 8 to 4096"),
    ("224", "4", "10: model.image_size: found 4, wanted a whole number from 8 to 4096"),
    ("name: resnet18.a1_in1k", "name: 18", "10: model.name: found 18, wanted a text; put it in quotes"),
    (
        "name: resnet18.a1_in1k, ",
        "",
        "10: model.name: missing; wanted a text (timm architecture, Hub id, or the folder of an earlier run)",
    ),
    (MODEL, "model: resnet18", "10: model: found 'resnet18', wanted {name: ...}"),
    (
        "output: runs/flowers",
        "",
        ": output: missing; wanted a text that is not empty (Folder of the run; made if it is not there)",
    ),
    ("runs/flowers", "''", "3: output: found '', wanted a text that is not empty"),
    (
        "image-classification\n",
        "image-clasification\n",
        f"2: task: found 'image-clasification', wanted {TASK_NAMES}; did you mean 'image-classification'?",
    ),
    ("task: image-classification\n", "", f": task: missing; wanted {TASK_NAMES} (What is trained)"),
    (
        "patience",
        "patience: 3, metric",
        "12: early_stopping.metric: unknown key; wanted patience or threshold",
    ),
    (
        "{table: data/test.csv}",
        "{tabel: x.csv}",
        "7: data.validation: found a mapping with 'tabel', wanted {table: ...}, {folder: ...}, {hub: ...} "
        "or a number above 0 and below 1; did you mean 'table'?",
    ),
    (
        "{table: data/test.csv}",
        "1.5",
        "7: data.validation: found 1.5, wanted {table: ...}, {folder: ...}, {hub: ...} "
        "or a number above 0 and below 1",
    ),
    (
        "{table: data/test.csv}",
        "{folder: val, split: test}",
        "7: data.validation.split: unknown key; wanted folder",
    ),
    (
        "label: label",
        "labels: {a: 1}",
        "8: data.columns.labels: found a mapping, wanted a list (each a text) or a text",
    ),
    (
        "label: label",
        "labels: [a, 1]",
        "8: data.columns.labels.1: found 1, wanted a text; put it in quotes",
    ),
    (
        "cross-entropy",
        "cross-entrpy",
        "11: loss.name: found 'cross-entrpy', wanted 'cross-entropy', 'binary-cross-entropy' "
        "or 'asymmetric'; did you mean 'cross-entropy'?",
    ),
    (
        "name: cross-entropy, ",
        "",
        "11: loss.name: missing; wanted 'cross-entropy', 'binary-cross-entropy' or 'asymmetric'",
    ),
    (
        "label_smoothing: 0.1",
        "class_weights: {rose: -1}",
        "11: loss.class_weights.rose: found -1, wanted a number above 0",
    ),
    (
        LOSS,
        "loss: {name: asymmetric}",
        "11: loss.name: 'asymmetric' does not fit data.columns, which name one label; wanted cross-entropy",
    ),
    (
        MODEL,
        f"{MODEL}\nmodel: {{}}",
        "11: model: key given twice, first in line 10",
    ),
    (
        "label_smoothing: 0.1",
        "class_weights: {0: 1.0}",
        "11: loss.class_weights: found the key '0', wanted a text as key; put it in quotes",
    ),
    (
        "resnet18.a1_in1k",
        "!!python/name:os.system x",
        "10: model.name: found the tag '!!python/name:os.system', wanted a plain value without a tag",
    ),
    (
        "resnet18.a1_in1k",
        "!secret x",
        "10: model.name: found the tag '!secret', wanted a plain value without a tag",
    ),
    (
        "{table: data/test.csv}",
        "{<<: {}, folder: x}",
        "7: data.validation: '<<' is not supported; write the keys out",
    ),
    (
        "resnet18.a1_in1k",
        "'${eval:1}'",
        "10: model.name: found '${eval:1}', wanted a reference as ${key.of.this.recipe} or ${oc.env:NAME}, "
        "without a backslash",
    ),
    (
        "resnet18.a1_in1k",
        "'${data.colums.label}'",
        "10: model.name: found '${data.colums.label}', but this recipe has no key 'data.colums.label', "
        "did you mean 'columns' for 'colums'?",
    ),
    (
        "resnet18.a1_in1k",
        "'${model.name}'",
        "10: model.name: found '${model.name}', which leads to '${model.name}'; "
        "wanted the key of a plain value",
    ),
    (
        "resnet18.a1_in1k",
        "'${data}'",
        "10: model.name: found '${data}', which is a mapping; wanted the key of a single short value",
    ),
    (
        "resnet18.a1_in1k",
        "'${oc.env:HF_TASKS_NO_SUCH_NAME}'",
        "10: model.name: found '${oc.env:HF_TASKS_NO_SUCH_NAME}', but the environment variable "
        "HF_TASKS_NO_SUCH_NAME is not set; set it",
    ),
    (
        "resnet18.a1_in1k",
        "${output}",
        "10: not valid YAML: expected ',' or '}', but got '{'; "
        "inside braces or brackets, put ${...} in quotes",
    ),
    ("224}", "224", "11: not valid YAML: expected ',' or '}', but got ':'"),
    ("224", "\x07", "10: character 0x7 is not allowed in YAML"),
    ("224", "[" * 30 + "]" * 30, "10: not valid YAML: nested deeper than 20 levels"),
    (GOOD, "", ": found nothing, wanted sections such as `task: image-classification`"),
    (GOOD, "- task", ": found a list, wanted sections such as `task: image-classification`"),
    (GOOD, "a: 1\n---\nb: 2\n", "2: not valid YAML: but found another document"),
    (GOOD, 'a: "\\UFFFFFFFF"', ": not valid YAML: an escaped character that does not exist"),
]


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES, ids=[mistake[2][:45] for mistake in MISTAKES])
def test_a_mistake_is_one_line_with_file_line_and_key(recipe_file, old, new, expected):
    path = recipe_file(GOOD.replace(old, new, 1))

    problems = problems_of(path)

    assert problems == [f"recipe.yaml{'' if expected.startswith(':') else ':'}{expected}"]


OVERRIDE_MISTAKES = [
    ("training.learning_rat=3", "training.learning_rat: unknown key, did you mean 'learning_rate'?"),
    ("trainig.seed=3", "trainig: unknown key, did you mean 'training'?"),
    ("model.image_size=big", "model.image_size: found 'big', wanted a whole number from 8 to 4096"),
    ("model={name: x, image_size: 4}", "model.image_size: found 4, wanted a whole number from 8 to 4096"),
    *(
        (
            f"data.validation={bound}",
            f"data.validation: found {bound}, wanted {{table: ...}}, {{folder: ...}}, {{hub: ...}} or a "
            "number above 0 and below 1",
        )
        for bound in (0, 1)
    ),
    (
        "data.train={images: x}",
        "data.train: found a mapping with 'images', wanted {table: ...}, {folder: ...} or {hub: ...}",
    ),
    ("seed", "wanted KEY=VALUE, as training.num_train_epochs=3"),
    ("metrics.x=f1", "metrics.x: no such place; wanted keys of mappings or numbers of list items"),
    ("metrics.0=!!int 3", "metrics.0: found 3, wanted a text; put it in quotes"),
    ("hub.repo=flowers", "hub.repo: found 'flowers', wanted owner/name"),
    (
        "report.mlflow={}",
        "report.mlflow.experiment: missing; wanted a text that is not empty (Experiment of "
        "the run; made if it is not there)",
    ),
    (
        "export={formats: [onnx], sample: 0}",
        "export.sample: found 0, wanted a whole number of at least 1 or 'all'",
    ),
    (
        "export={formats: [onnx], sample: true}",
        "export.sample: found true, wanted a whole number of at least 1 or 'all'",
    ),
    ("report.wrong_images=0", "report.wrong_images: found 0, wanted a whole number from 1 to 200"),
    (
        "training.push_to_hub=true",
        "training.push_to_hub: not set here; the program does not upload while it "
        "trains; use hub, or hf-tasks push when the run has ended",
    ),
    (
        "training.eval_strategy=no",
        "training.eval_strategy: found false, wanted 'no', 'steps' or 'epoch'; put it in quotes, and those "
        "in others, which the shell takes away: 'training.eval_strategy=\"no\"'",
    ),
    (
        "training.label_smoothing_factor=0.1",
        "training.label_smoothing_factor: not set here; use loss.label_smoothing",
    ),
    (
        "training.batch_eval_metrics=true",
        "training.batch_eval_metrics: not set here; figures are worked out over all rows at once",
    ),
    (
        "training.seed=4294967296",
        "training.seed: found 4294967296, wanted a whole number from 0 to 4294967295",
    ),
    ("metrics=[", "metrics: not valid YAML: expected the node content, but found '<stream end>'"),
    ("output=!x y", "output: found the tag '!x', wanted a plain value without a tag"),
]


@pytest.mark.parametrize(("override", "expected"), OVERRIDE_MISTAKES)
def test_a_mistake_in_an_override_names_the_override(recipe_file, override, expected):
    problems = problems_of(recipe_file(f"{GOOD}\nmetrics: [f1]"), override)

    assert problems == [f"override {override!r}: {expected}"]


def test_all_mistakes_are_reported_together_in_the_order_of_the_file(recipe_file):
    text = GOOD.replace("image-classification\n", "segmentation\n").replace("patience: 3", "patience: 0")

    problems = problems_of(recipe_file(text), "training.seed=x", "trainin={}")

    assert problems == [
        f"recipe.yaml:2: task: found 'segmentation', wanted {TASK_NAMES}",
        "recipe.yaml:12: early_stopping.patience: found 0, wanted a whole number of at least 1",
        "override 'training.seed=x': training.seed: found 'x', wanted a whole number from 0 to 4294967295",
    ]


def test_a_text_of_aliases_that_would_grow_huge_is_refused(recipe_file):
    lines = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 9)]
    path = recipe_file(f"{GOOD}a0: &a0 x\n" + "\n".join(lines))

    problems = problems_of(path)

    assert len(problems) == 1
    assert problems[0].endswith(": aliases that repeat themselves too often; write the values out")


def test_an_alias_within_itself_is_refused(recipe_file):
    problems = problems_of(recipe_file(f"{GOOD}metrics: &metrics [*metrics, *metrics]"))

    assert len(problems) == 1
    assert problems[0].endswith(": aliases that repeat themselves too often; write the values out")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "recipe.yaml: cannot be read (No such file or directory); wanted a recipe file in YAML"),
        (b"task: x\noutput: \xff", "recipe.yaml:2: not UTF-8 text; save the file as UTF-8"),
        (b"a" * (MAX_BYTES + 1), "recipe.yaml: 1,000,001 bytes, wanted a recipe of at most 1,000,000"),
        (b"task: x\n\x00", "recipe.yaml:2: character 0x0 is not allowed in YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_said_to_be_none(tmp_path, monkeypatch, content, expected):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("recipe.yaml").write_bytes(content)

    problems = problems_of("recipe.yaml")

    assert problems == [expected]


def test_a_folder_is_not_a_recipe(tmp_path):
    problems = problems_of(tmp_path)

    assert problems == [f"{tmp_path}: cannot be read (Is a directory); wanted a recipe file in YAML"]


def test_a_value_from_the_environment_is_not_shown_in_an_error(recipe_file, monkeypatch):
    monkeypatch.setenv("SECRET_NAME", "hunter2")

    problems = problems_of(recipe_file(GOOD), "model.image_size=${oc.env:SECRET_NAME}")

    assert problems == [
        "override 'model.image_size=${oc.env:SECRET_NAME}': model.image_size: "
        "found '${oc.env:SECRET_NAME}', wanted a whole number from 8 to 4096"
    ]
