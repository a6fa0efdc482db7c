import pytest
import yaml
from conftest import ROOT

from hf_tasks.hub.card import CardFacts, escape, write_card
from hf_tasks.recipe import load_recipe
from hf_tasks.workflow.publishing import find_base_model

CLASSES = {
    "cat": {"precision": 0.9, "recall": 0.9, "f1": 0.9, "support": 50},
    "a|b <img src=x>": {"precision": 0.4, "recall": 0.5, "f1": 0.45, "support": 40},
    "_rare_": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 3},
}


def card_of(**changes):
    facts = {
        "name": "pets",
        "task": "image-classification",
        "load_from": "me/pets",
        "license": "apache-2.0",
        "datasets": ["me/pets-data"],
        "base_model": "timm/resnet18.a1_in1k",
        "metrics": {
            "accuracy": 0.75,
            "f1_macro": 0.783,
            "per_class": CLASSES,
            "confusion_matrix": [[45, 5, 0], [20, 20, 0], [0, 0, 3]],
        },
        "data": {"classes": list(CLASSES), "train": {"rows": 400}, "validation": {"rows": 93}},
        "config": {},
        "formats": [],
    }
    return write_card(CardFacts(**{**facts, **changes}))


def test_the_head_is_what_the_hub_reads():
    head = yaml.safe_load(card_of().split("---\n")[1])

    assert head["license"] == "apache-2.0"
    assert head["datasets"] == ["me/pets-data"]
    assert head["base_model"] == "timm/resnet18.a1_in1k"
    assert head["tags"] == ["hf_tasks", "image-classification"]
    assert head["model-index"][0]["results"][0]["dataset"]["type"] == "me/pets-data"
    assert head["model-index"][0]["results"][0]["metrics"][0] == {"type": "accuracy", "value": 0.75}


def test_class_names_stay_texts_and_cells():
    card = card_of()

    [row] = [line for line in card.splitlines() if line.startswith("| a&")]
    assert row == "| a&#124;b &#60;img src=x&#62; | 0.4000 | 0.5000 | 0.4500 | 40 |"
    assert "<img" not in card


def test_escaped_texts_keep_underscores_within_words():
    assert escape("f1_macro") == "f1_macro"
    assert escape("_em_") == "&#95;em&#95;"
    assert escape("- a\n# b") == "&#45; a &#35; b"


def test_weak_and_hardly_measured_classes_are_told():
    weak = card_of().split("## Known weak classes")[1].split("##")[0]

    assert "- a&#124;b &#60;img src=x&#62;: F1 0.450; 20 of 40 are taken for cat" in weak
    assert "- measured on fewer than 10 examples each: &#95;rare&#95;" in weak
    assert "- cat" not in weak


def test_thresholds_and_temperature_are_told_where_the_config_has_them():
    calibration = {"temperature": 1.25, "thresholds": {"cat": 0.31, "_rare_": 0.9}}

    card = card_of(config={"calibration": calibration})

    assert "Temperature: 1.2500" in card
    assert "| cat | 0.3100 |" in card
    assert "threshold" not in card_of()


def test_exported_files_that_passed_are_told():
    record = {
        "format": "onnx",
        "file": "export/onnx/model.onnx",
        "passed": True,
        "largest_difference": 2.5e-7,
        "metric": {"name": "accuracy", "before": 0.75, "after": 0.75},
    }

    card = card_of(formats=[record, {**record, "format": "torchscript", "passed": False}])

    assert "| onnx | export/onnx/model.onnx | 2.5e-07 | accuracy 0.7500 -&#62; 0.7500 |" in card
    assert "torchscript" not in card


def test_a_folder_that_breaks_out_of_the_code_does_not():
    card = card_of(load_from='x"\n```\n# y')

    assert "\n# y" not in card


@pytest.mark.parametrize(
    ("task", "config", "line"),
    [
        ("metric-learning", {}, 'model = AutoModel.from_pretrained("me/pets")'),
        ("a-task-to-come", {}, 'model = AutoModel.from_pretrained("me/pets")'),
        ("siamese", {}, 'model = SentenceTransformer("me/pets")'),
        (
            "language-model",
            {"architectures": ["GPT2LMHeadModel"]},
            'pipeline("text-generation", model="me/pets")',
        ),
        ("language-model", {"architectures": ["BertForMaskedLM"]}, 'pipeline("fill-mask", model="me/pets")'),
    ],
)
def test_each_task_says_how_its_model_is_loaded(task, config, line):
    card = card_of(task=task, config=config, metrics={"mrr": 0.5})

    program = card.split("```python\n")[1].split("```")[0]
    assert line in program
    compile(program, "card", "exec")


@pytest.mark.parametrize(
    ("recipe", "base_model"),
    [
        ("image_classification/multiclass", "timm/resnet18.a1_in1k"),
        ("image_classification/digits", None),
        ("language_model/fine_tune", "gpt2"),
        ("language_model/docstrings", None),
        ("siamese/docstring_pairs", None),
    ],
)
def test_the_weights_that_training_started_from_are_named_as_the_hub_does(recipe, base_model):
    assert find_base_model(load_recipe(ROOT / f"recipes/{recipe}.yaml")) == base_model
