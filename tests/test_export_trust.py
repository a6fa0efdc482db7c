"""What is refused of files that lie in a run: exports that are not the proved ones, and damaged JSON."""

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from hf_tasks import workflow
from hf_tasks.artifacts import Artifacts, read_json
from hf_tasks.errors import ExportError, UserError
from hf_tasks.export import files
from hf_tasks.export.networks import open_export, open_network
from hf_tasks.export.parity import Metric, Parity, Record, sha256_of
from hf_tasks.recipe import load_recipe
from hf_tasks.workflow.folders import finished_as_it_is

DOUBLE = """
<ir_version: 9, opset_import: ["" : 18]>
double (float[batch, 2] x) => (float[batch, 2] y) { y = Add (x, x) }
"""


def write_export(folder, *, passed=True):
    """A run's `export` folder with one ONNX file and its proof."""
    file = folder / "onnx/model.onnx"
    file.parent.mkdir(parents=True)
    onnx.save(onnx.parser.parse_model(DOUBLE), file)
    record = Record(
        format="onnx",
        file="export/onnx/model.onnx",
        passed=passed,
        reason=None if passed else "outputs differ",
        examples=1,
        largest_difference=0.0,
        mean_difference=0.0,
        agreement=1.0,
        metric=Metric("accuracy", 1.0, 1.0),
        sha256=sha256_of(file),
    )
    Parity((record,), of_rows=1).write(folder / "parity.json")
    return file


def test_the_file_that_was_proved_answers(tmp_path):
    write_export(tmp_path / "export")

    network = open_export(tmp_path / "export", "onnx", torch.nn.Identity)

    assert network({"x": np.ones((1, 2), np.float32)}).tolist() == [[2, 2]]


def test_a_file_that_was_changed_since_its_proof_is_refused(tmp_path):
    file = write_export(tmp_path / "export")
    other = onnx.parser.parse_model(DOUBLE.replace("Add", "Mul"))
    onnx.save(other, file)

    with pytest.raises(
        ExportError, match=r"model.onnx is not the file that was proved.*hf-tasks export .* onnx"
    ):
        open_export(tmp_path / "export", "onnx", torch.nn.Identity)


def test_a_refused_file_that_was_put_among_the_good_is_refused(tmp_path):
    write_export(tmp_path / "export", passed=False)

    with pytest.raises(ExportError, match="onnx was refused by its proof"):
        open_export(tmp_path / "export", "onnx", torch.nn.Identity)


@pytest.mark.parametrize("lost", ["parity.json", "sha256"])
def test_a_file_without_a_proof_of_its_own_is_refused(tmp_path, lost):
    write_export(tmp_path / "export")
    parity = tmp_path / "export/parity.json"
    if lost == "sha256":
        parity.write_text(parity.read_text().replace('"sha256"', '"older"'))
    else:
        parity.unlink()

    with pytest.raises(ExportError, match=r"parity.json holds no proof of .*model.onnx; make it anew"):
        open_export(tmp_path / "export", "onnx", torch.nn.Identity)


@pytest.mark.parametrize("damage", ["cut", "plain"])
def test_damaged_tensors_of_torchao_are_told_without_a_traceback(tmp_path, damage):
    pytest.importorskip("torchao")
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(8, 8)}, file)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-9])

    with pytest.raises(
        ExportError, match=r"model.safetensors: (safetensors cannot read|found plain tensors)"
    ):
        open_network(file, torch.nn.Identity)


@pytest.mark.parametrize("text", ['{"a": ', "[1]", "\xff"])
def test_json_of_a_run_that_was_damaged_is_told_with_its_path(tmp_path, text):
    (tmp_path / "metrics.json").write_bytes(text.encode("latin-1"))

    with pytest.raises(
        UserError, match=r"metrics.json: damaged, found .*; bring the file back, or delete it"
    ):
        read_json(tmp_path / "metrics.json")


def test_a_damaged_proof_is_told_when_a_run_is_resumed(tmp_path):
    run = Artifacts(tmp_path)
    for path in (run.recipe, run.metrics, run.predictions, run.report, run.card, run.parity):
        path.parent.mkdir(exist_ok=True)
        path.write_text("{")

    with pytest.raises(UserError, match=r"parity.json: damaged, found no JSON"):
        finished_as_it_is(tmp_path, "{", training={}, is_exported=True)


def test_a_missing_package_is_told_before_training_with_the_line_that_installs_it(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("one\ntwo\n")
    source = f"{{text: {tmp_path}/text.txt}}"
    (tmp_path / "recipe.yaml").write_text(
        f"task: language-model\noutput: {tmp_path}/run\ndata: {{train: {source}, validation: {source}}}\n"
        "model: {from_scratch: {}}\nexport: [onnx-int8]\n"
    )
    monkeypatch.setattr(files, "find_spec", lambda name: None)

    with pytest.raises(
        ExportError, match=r"onnx-int8 needs the package onnx and .*pip install 'hf_tasks\[onnx\]'"
    ):
        workflow.run(load_recipe(tmp_path / "recipe.yaml"), console=Console(quiet=True))

    assert not (tmp_path / "run").exists()
