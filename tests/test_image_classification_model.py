"""The classifier: classes in its config, which weights it keeps, and that plain transformers loads it."""

import logging

import pytest
import torch
import yaml
from forked_program import end_code, run_to_end, start
from PIL import Image
from transformers import AutoModelForImageClassification

from hf_tasks.images.backbone import open_weights
from hf_tasks.tasks.image_classification.model import build_classifier

HEAD = ("classifier.weight", "classifier.bias")


def build(class_names, *, name="test_efficientnet", **options):
    opened = open_weights(str(name), pretrained=False, image_size=32)
    return build_classifier(opened, class_names=class_names, is_multilabel=False, **options)


def test_classes_and_problem_type_stand_in_the_config():
    opened = open_weights("test_efficientnet", pretrained=False)

    model = build_classifier(opened, class_names=["b", "a"], is_multilabel=True)

    assert model.config.id2label == {0: "b", 1: "a"}
    assert model.config.label2id == {"b": 0, "a": 1}
    assert model.config.problem_type == "multi_label_classification"
    assert model.config.num_labels == 2


def test_plain_transformers_loads_what_is_saved_with_equal_logits(tmp_path):
    model = build(["a", "b", "c"], drop_rate=0.3).eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path)

    loaded = AutoModelForImageClassification.from_pretrained(tmp_path).eval()

    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels).logits, model(pixels).logits, atol=1e-6, rtol=0)
    assert loaded.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert loaded.timm_model.drop_rate == 0.3


def test_the_head_goes_on_with_the_same_classes(tmp_path, caplog):
    earlier = build(["cat", "dog"])
    earlier.save_pretrained(tmp_path)

    with caplog.at_level(logging.INFO, logger="hf_tasks"):
        model = build(["cat", "dog"], name=tmp_path)

    for name, tensor in earlier.timm_model.state_dict().items():
        torch.testing.assert_close(model.timm_model.state_dict()[name], tensor, atol=0, rtol=0)
    assert caplog.messages == []


@pytest.mark.parametrize("class_names", [["dog", "cat"], ["cat", "cow"], ["cat", "cow", "dog"]])
def test_the_head_starts_anew_with_other_classes_and_the_rest_is_kept(tmp_path, caplog, class_names):
    earlier = build(["cat", "dog"])
    earlier.save_pretrained(tmp_path)
    before = earlier.timm_model.state_dict()

    with caplog.at_level(logging.INFO, logger="hf_tasks"):
        after = build(class_names, name=tmp_path).timm_model.state_dict()

    for name in before.keys() - set(HEAD):
        torch.testing.assert_close(after[name], before[name], atol=0, rtol=0)
    assert after[HEAD[0]].shape[0] == len(class_names)
    assert not torch.equal(after[HEAD[0]][:2], before[HEAD[0]])
    (message,) = caplog.messages
    assert "the classifier of the weights (2 classes: cat, dog) is left out" in message
    assert f"a new one for {len(class_names)} classes ({', '.join(class_names)}) starts" in message


@pytest.fixture
def recipe(tmp_path):
    for label, level in (("cow", 200), ("horse", 90), ("pig", 20)):
        for row in range(4):
            path = tmp_path / "pictures" / label / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (level, 10 * row, 0)).save(path)
    sections = {
        "task": "image-classification",
        "output": str(tmp_path / "run"),
        "data": {"train": {"folder": str(tmp_path / "pictures")}, "validation": 0.25},
        "model": {"name": "test_efficientnet", "pretrained": False, "image_size": 32},
        "training": {"max_steps": 1, "per_device_train_batch_size": 4, "dataloader_num_workers": 0},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def test_the_program_says_on_the_terminal_what_it_left_out(tmp_path, recipe):
    build(["cat", "dog"]).save_pretrained(tmp_path / "earlier")

    printed = run_to_end(["train", str(recipe), f"model.name={tmp_path / 'earlier'}"], tmp_path / "log")

    assert "the classifier of the weights (2 classes: cat, dog) is left out" in printed
    assert printed.count("is left out") == 1


def test_the_program_reads_no_data_when_weights_cannot_be_had(tmp_path, recipe):
    (tmp_path / "pictures" / "cow" / "broken.png").write_bytes(b"no picture")
    arguments = ["train", str(recipe), "model.weights=missing.pth"]

    code = end_code(start(arguments, tmp_path / "log"))

    assert code == 2
    assert (tmp_path / "log").read_text().splitlines() == ["error: model.weights: no file missing.pth"]
