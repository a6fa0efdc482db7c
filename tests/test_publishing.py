import hashlib
import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import run_program
from hub_stand_in import HubStandIn
from transformers import AutoModelForImageClassification

pytestmark = pytest.mark.slow

LOAD = """
import sys, torch
from transformers import AutoModelForImageClassification

model = AutoModelForImageClassification.from_pretrained("me/digits")
torch.manual_seed(0)
print(model(torch.rand(2, 3, 32, 32)).logits.tolist())
"""


@pytest.fixture(scope="module")
def hub():
    with HubStandIn() as hub:
        yield hub


@pytest.fixture(scope="module")
def environment(hub, tmp_path_factory):
    home = str(tmp_path_factory.mktemp("home"))
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": home,
        "HF_TOKEN": "hf_secret",
        # huggingface_hub 2 asks for no other way unless told; the stand-in keeps large files by LFS.
        "HF_HUB_DISABLE_XET": "1",
    }


@pytest.fixture(scope="module")
def run(digits_run, tmp_path_factory):
    """A finished run with an export, and things that are nobody's business."""
    run = tmp_path_factory.mktemp("runs") / "digits"
    shutil.copytree(digits_run, run)
    (run / "export/onnx").mkdir(parents=True)
    (run / "export/onnx/model.onnx").write_bytes(b"graph")
    (run / "logs").mkdir()
    (run / "logs/events").write_bytes(b"private")
    return run


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_upload_that_breaks_off_shows_nothing_and_goes_on_where_it_was(hub, run, environment):
    weights, graph = sha256(run / "model/model.safetensors"), sha256(run / "export/onnx/model.onnx")
    hub.refused.add(weights)

    broken = run_program("push", run, "me/digits", folder=run.parent, environment=environment)
    files_after_break = dict(hub.repositories["me/digits"].files)
    hub.refused.clear()
    done = run_program("push", run, "me/digits", folder=run.parent, environment=environment)

    assert broken.returncode == 2
    assert "storage is full" in broken.stderr
    assert "not sent a second time" in broken.stderr
    assert files_after_break == {}
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert sorted(hub.received) == sorted([graph, weights])


def test_the_repository_is_private_and_holds_the_model_and_nothing_private(hub, run):
    repository = hub.repositories["me/digits"]

    assert repository.private
    assert hub.tokens == {"Bearer hf_secret"}
    assert repository.commits == ["Upload digits with hf_tasks"]
    assert set(repository.files) >= {
        "config.json",
        "model.safetensors",
        "README.md",
        "recipe.yaml",
        "metrics.json",
        "export/onnx/model.onnx",
    }
    private = ("predictions", "logs", "checkpoints", "tracking", "training_args")
    assert not [name for name in repository.files if name.startswith(private)]
    assert repository.files["model.safetensors"] == (run / "model/model.safetensors").read_bytes()


def test_the_model_loads_from_the_repository_with_transformers_alone(hub, run, environment, tmp_path):
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=tmp_path,
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    )

    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_pretrained(run / "model")
    expected = model(torch.rand(2, 3, 32, 32)).logits
    torch.testing.assert_close(torch.tensor(json.loads(loaded.stdout)), expected, atol=1e-5, rtol=0)


def test_the_card_names_the_repository_and_the_figures(hub, run):
    card = hub.repositories["me/digits"].files["README.md"].decode()

    head = yaml.safe_load(card.split("---")[1])
    metrics = json.loads((run / "metrics.json").read_text())
    [result] = head["model-index"][0]["results"]
    figures = {figure["type"]: figure["value"] for figure in result["metrics"]}
    assert figures["accuracy"] == pytest.approx(metrics["accuracy"], abs=1e-6)
    assert head["pipeline_tag"] == "image-classification"
    assert 'pipeline("image-classification", model="me/digits")' in card
    assert f"| 7 | {metrics['per_class']['7']['precision']:.4f} |" in card


def test_what_a_run_has_no_more_goes_and_what_others_added_stays(hub, run, environment, tmp_path):
    changed = tmp_path / "digits"
    shutil.copytree(run, changed)
    shutil.rmtree(changed / "export")
    repository = hub.repositories["me/digits"]
    before, weights = set(repository.files), list(hub.received)
    repository.files["docs/photograph.jpg"] = b"of a person"

    done = run_program("push", changed, "me/digits", folder=tmp_path, environment=environment)

    assert done.returncode == 0, done.stderr
    assert set(repository.files) == before - {"export/onnx/model.onnx"} | {"docs/photograph.jpg"}
    assert hub.received == weights


@pytest.mark.parametrize("name", ["digits", "me/../you", "me/digits/more", ""])
def test_a_name_that_is_no_repository_is_refused_before_anything_is_read(tmp_path, name):
    refused = run_program("push", tmp_path, name, folder=tmp_path)

    assert refused.returncode == 2
    assert "wanted owner/name" in refused.stderr
