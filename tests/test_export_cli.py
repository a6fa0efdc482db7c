"""Exports as a person meets them: exit codes, messages, tables of 80 columns, files moved aside."""

import json
import shutil

import pytest
from conftest import run_program
from pictures import write_class_pictures

from hf_tasks.errors import ExportError
from hf_tasks.export.networks import open_network
from hf_tasks.export.parity import read_records

pytestmark = pytest.mark.slow

RECIPE = """\
task: image-classification
output: run
data: {{train: {{folder: train}}, validation: {{folder: validation}}}}
model: {{name: {name}, pretrained: false, image_size: {size}}}
augmentation: none
training: {{max_steps: 2, per_device_train_batch_size: 8, eval_strategy: "no", use_cpu: true,
  save_strategy: "no", load_best_model_at_end: false, dataloader_num_workers: 0}}
export: {export}
"""


def write_recipe(folder, *, export, name="test_resnet", size=32):
    folder.mkdir(exist_ok=True)
    write_class_pictures(folder / "train", classes=3, per_class=6)
    write_class_pictures(folder / "validation", classes=3, per_class=4)
    (folder / "recipe.yaml").write_text(RECIPE.format(name=name, size=size, export=export), "utf-8")
    return folder


@pytest.fixture(scope="module")
def refused_at_training(tmp_path_factory):
    """A folder with a run whose recipe allows no difference at all, and what the program said of it."""
    folder = tmp_path_factory.mktemp("strict")
    write_recipe(folder, export="{formats: [onnx], tolerance: {difference: 0}}")
    return folder, run_program("train", "recipe.yaml", folder=folder)


def test_a_run_with_a_refused_file_ends_with_code_2_and_says_what_and_what_next(refused_at_training):
    _, done = refused_at_training

    assert done.returncode == 2
    assert "files do not answer as the model does; they are in run/export/rejected:" in done.stderr
    assert "\n  onnx: outputs differ by up to" in done.stderr
    assert "(allowed 0)" in done.stderr
    assert "`hf-tasks export run onnx`" in done.stderr
    assert "export.tolerance" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refused_file_lies_in_rejected_alone_beside_a_whole_run(refused_at_training):
    folder, _ = refused_at_training
    export = folder / "run/export"

    record = json.loads((export / "parity.json").read_text())["formats"][0]

    assert (export / "rejected/onnx/model.onnx").is_file()
    assert not (export / "onnx/model.onnx").exists()
    assert (record["format"], record["passed"]) == ("onnx", False)
    assert (folder / "run/model/model.safetensors").is_file()
    assert "outputs differ by up to" in (folder / "run/report.html").read_text()
    assert "rejected" not in (folder / "run/README.md").read_text()


def test_predict_does_not_answer_with_a_refused_file(refused_at_training):
    folder, _ = refused_at_training

    done = run_program("predict", "run", "validation", "--out", "x.csv", "--with", "onnx", folder=folder)

    assert done.returncode == 2
    assert "--with: onnx was refused by its proof; see run/export/parity.json" in done.stderr


def test_a_finished_run_is_exported_and_the_table_fits_80_columns(refused_at_training, tmp_path):
    shutil.copytree(refused_at_training[0], tmp_path / "home")
    recipe = tmp_path / "home/run/recipe.yaml"
    text = recipe.read_text()
    recipe.write_text(text[: text.index("export:")])

    done = run_program("export", "run", "onnx", "torchscript", "triton", folder=tmp_path / "home")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[:2] for line in lines if " good " in line] == [
        ["onnx", "good"],
        ["onnx-end-to-end", "good"],
        ["torchscript", "good"],
        ["torchscript-end-to-end", "good"],
    ]
    assert "PyTorch: accuracy" in done.stdout


def test_an_unknown_format_is_told_with_those_that_there_are(refused_at_training):
    folder, _ = refused_at_training

    done = run_program("export", "run", "onxx", folder=folder)

    assert done.returncode == 2
    assert "found 'onxx', wanted 'onnx'" in done.stderr


def test_check_exports_the_untrained_model_and_leaves_nothing(tmp_path):
    write_recipe(tmp_path, export="[torchscript]")

    done = run_program("train", "recipe.yaml", "--check", folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "check passed" in done.stdout
    assert not (tmp_path / "run").exists()


def test_check_stops_on_an_impossible_format_before_the_first_step(tmp_path):
    # A trace of a vision transformer keeps the number of patches that it was made with.
    write_recipe(tmp_path, export="{formats: [torchscript], image_size: free}", name="test_vit", size=160)

    done = run_program("train", "recipe.yaml", "--check", folder=tmp_path)

    assert done.returncode == 2
    assert (
        "error: export: torchscript: it does not run on larger pictures; set export.image_size: fixed"
        in done.stderr
    )
    assert "loss" not in done.stdout
    assert not (tmp_path / "run").exists()


def test_a_file_that_was_cut_short_is_told_without_a_traceback(tmp_path):
    for name in ("model.onnx", "model.pt"):
        (tmp_path / name).write_bytes(b"\x08\x0a\x12\x07pytorch" * 9)
        with pytest.raises(ExportError, match=rf"{name}: .* cannot (run|load) it"):
            open_network(tmp_path / name)


@pytest.mark.parametrize("text", ["{", "[]", '{"formats": 3}', '{"formats": ["onnx"]}', "{}"])
def test_a_proof_that_someone_changed_is_told(tmp_path, text):
    (tmp_path / "parity.json").write_text(text)

    with pytest.raises(ExportError, match="no proof of ours, found other text; delete it"):
        read_records(tmp_path / "parity.json")
