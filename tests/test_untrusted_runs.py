"""Run folders, checkpoints, exports and indexes from others are read, and never run."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from attacks import Attack, code, write_pickle
from onnx import TensorProto, helper
from pictures import write_class_pictures
from rich.console import Console

from hf_tasks import workflow
from hf_tasks.artifacts import Artifacts
from hf_tasks.callbacks.checkpoints import COMPLETE_MARK, last_complete_checkpoint
from hf_tasks.errors import ExportError, ModelError, UserError
from hf_tasks.export.networks import open_network
from hf_tasks.recipe import load_recipe
from hf_tasks.workflow.index import open_index
from hf_tasks.workflow.prediction import predict_files

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with `recipe.yaml` and its finished `run` of two steps."""
    folder = tmp_path_factory.mktemp("untrusted")
    write_class_pictures(folder / "pictures", classes=2, per_class=3)
    recipe = {
        "task": "image-classification",
        "output": str(folder / "run"),
        "data": {"train": {"folder": str(folder / "pictures")}, "validation": 0.34},
        "model": {"name": "test_vit", "pretrained": False, "image_size": 32},
        "training": {"max_steps": 2, "save_steps": 1, "save_strategy": "steps", "eval_strategy": "steps",
                     "eval_steps": 1, "use_cpu": True, "dataloader_num_workers": 0},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    workflow.run(load_recipe(folder / "recipe.yaml"), console=QUIET)
    return folder


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    """A copy of that run, to be tampered with; an attacker leaves no list of what was written."""
    shutil.copytree(trained / "run", tmp_path / "run")
    (last_complete_checkpoint(Artifacts(tmp_path / "run").checkpoints) / COMPLETE_MARK).write_text("")
    return tmp_path / "run"


@pytest.fixture
def mark(tmp_path):
    """Written by code that is run; a test fails if it is there at its end."""
    path = tmp_path / "mark"
    yield path
    assert not path.exists(), "code of the attack was run"


def resume(run: Path, trained: Path) -> None:
    recipe = load_recipe(trained / "recipe.yaml", [f"output={run}", "training.max_steps=3"])
    workflow.run(recipe, resume=True, console=QUIET)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"])
def test_a_checkpoint_is_never_unpickled(trained, copied, mark, name):
    checkpoint = last_complete_checkpoint(Artifacts(copied).checkpoints)
    torch.save({"state": Attack(mark)}, checkpoint / name)
    if name == "pytorch_model.bin":
        (checkpoint / "model.safetensors").unlink()

    with pytest.raises(
        UserError, match=rf"{checkpoint.name}: .*pickled objects.* never loaded; remove"
    ) as no:
        resume(copied, trained)

    assert "\n" not in str(no.value)


def test_what_lies_beside_a_checkpoint_is_not_read(trained, copied, mark):
    checkpoint = last_complete_checkpoint(Artifacts(copied).checkpoints)
    write_pickle(checkpoint / "training_args.bin", mark)
    write_pickle(copied / "model/training_args.bin", mark)
    (checkpoint / "sitecustomize.py").write_text(code(mark))

    resume(copied, trained)

    assert json.loads(Artifacts(copied).metrics.read_text())["training"]["steps"] == 3


def answer(run: Path, trained: Path, **options) -> None:
    predict_files(run, [trained / "pictures"], run.parent / "answers.csv", batch_size=4, **options)


def test_pickled_weights_of_a_run_are_refused_by_every_command(trained, copied, mark):
    (copied / "model/model.safetensors").unlink()
    torch.save({"weight": Attack(mark)}, copied / "model/pytorch_model.bin")

    for use in (
        lambda: answer(copied, trained),
        lambda: workflow.evaluate(copied, out=copied.parent / "measured", console=QUIET),
    ):
        with pytest.raises(ModelError, match=r"model: the model cannot be opened: .*pickled objects") as no:
            use()
        assert "\n" not in str(no.value)


@pytest.mark.parametrize(
    "header",
    [struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 9) + b"{", b""],
    ids=["long", "cut", "none"],
)
def test_weights_of_a_run_that_lie_are_told_in_a_line(trained, copied, header):
    (copied / "model/model.safetensors").write_bytes(header)

    with pytest.raises(ModelError, match=r"model: the model cannot be opened: .*wanted a folder") as refused:
        answer(copied, trained)

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("changed", [{"architecture": "evil_arch"}, {"pretrained_cfg": {}}])
def test_a_config_of_a_run_that_lies_is_told_in_a_line(trained, copied, changed):
    path = copied / "model/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))

    with pytest.raises(ModelError, match=r"model: the model cannot be opened: .*wanted a folder") as refused:
        answer(copied, trained)

    assert "\n" not in str(refused.value)


def test_code_in_the_config_of_a_run_is_not_looked_at(trained, copied, mark):
    path = copied / "model/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoConfig": "evil.Evil"}}))
    (copied / "model/evil.py").write_text(code(mark))

    answer(copied, trained)

    assert (copied.parent / "answers.csv").is_file()


def write_onnx(folder: Path, location: str) -> Path:
    """A network whose answer is a weight that lies in another file."""
    folder.mkdir()
    weight = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        weight.external_data.add(key=key, value=value)
    output = helper.make_tensor_value_info("found", TensorProto.FLOAT, [4])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["weight"], ["found"])], "g", [], [output], [weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


@pytest.mark.parametrize("how", ["dots", "absolute", "link"])
def test_an_onnx_file_cannot_read_weights_from_elsewhere(tmp_path, how):
    secret = tmp_path / "secret.bin"
    np.arange(4, dtype=np.float32).tofile(secret)
    location = {"dots": "../secret.bin", "absolute": str(secret), "link": "weight.bin"}[how]
    file = write_onnx(tmp_path / "onnx", location)
    if how == "link":
        (file.parent / "weight.bin").symlink_to(secret)

    with pytest.raises(ExportError, match=r"model\.onnx: onnxruntime cannot run it"):
        open_network(file)


def test_a_pickle_that_is_called_torchscript_is_refused(tmp_path, mark):
    path = write_pickle(tmp_path / "model.pt", mark)

    with pytest.raises(ExportError, match=r"model\.pt: PyTorch cannot load it") as refused:
        open_network(path)

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("what", ["pickle", "no facts", "no embeddings"])
def test_an_index_that_lies_is_refused(tmp_path, mark, what):
    path = tmp_path / "index.parquet"
    table = pa.table({"path": ["a"], "label": ["b"], "embedding": [[1.0] if what == "no facts" else "c"]})
    pq.write_table(table.replace_schema_metadata({} if what == "no facts" else {"hf_tasks": "{}"}), path)
    if what == "pickle":
        write_pickle(path, mark)

    with pytest.raises(UserError, match="the index is damaged"):
        open_index(tmp_path)
