"""Files are whole or not there, in every place of the program that writes one."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from hf_tasks.files import replace_folder, write_text, written_aside

WRITERS = {
    "write_text", "write_bytes", "write_csv", "write_table", "to_parquet", "to_json_file", "save_file",
    "save", "save_pretrained", "copyfile", "copy2", "OSFile",
}  # fmt: skip
NO_NEED = {
    "callbacks/mlflow_model.py": "into a folder for the time of an upload",
    "callbacks/mlflow_process.py": "a log",
    "callbacks/mlflow_sender.py": "a log",
    "callbacks/trial.py": "no file, but a switch of the kernel",
    "callbacks/wrong_pictures.py": "into a folder for the time of an upload",
    "data/sample_folder.py": "a sample, written over when it is asked for again",
    "data/samples.py": "as above",
    "data/text_samples.py": "as above",
    "export/end_to_end_onnx.py": "into a folder aside, whose files are renamed when they are proved",
    "export/onnx.py": "as above",
    "export/quantize.py": "as above",
    "export/torchao.py": "as above",
    "export/torchscript.py": "as above",
    "export/triton.py": "into a folder that is renamed",
    "images/packs.py": "opened to be read",
    "report/pictures.py": "into memory",
    "tasks/image_classification/export.py": "into a folder aside",
    "tasks/language_model/export.py": "into a folder aside",
    "tasks/language_model/blocks.py": "is given a path aside",
    "tasks/metric_learning/trainer.py": "into a folder aside, or a checkpoint, which is marked as whole",
    "tasks/siamese/adapters.py": "as above",
    "tasks/siamese/model.py": "as above",
}


def write_half(target: Path) -> None:
    with written_aside(target) as aside:
        aside.write_text("half")
        raise OSError("no room")


def test_a_file_is_replaced_only_when_the_new_one_is_whole(tmp_path):
    target = tmp_path / "new" / "answers.csv"
    write_text(target, "old")

    with pytest.raises(OSError, match="no room"):
        write_half(target)

    assert target.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["answers.csv"]


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("old")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((tmp_path / "a.txt").read_text()))

    write_text(tmp_path / "a.txt", "new")

    assert synced == ["old"]
    assert (tmp_path / "a.txt").read_text() == "new"


def test_what_a_kill_left_aside_does_not_stand_in_the_way(tmp_path):
    (tmp_path / ".answers.csv.part").write_text("half")

    write_text(tmp_path / "answers.csv", "whole")

    assert [path.name for path in tmp_path.iterdir()] == ["answers.csv"]
    assert (tmp_path / "answers.csv").read_text() == "whole"


def test_a_folder_is_replaced_whole(tmp_path):
    aside, target = tmp_path / ".model.part", tmp_path / "model"
    for folder, name in ((aside, "new"), (target, "old"), (tmp_path / ".model.replaced", "older")):
        folder.mkdir()
        (folder / name).touch()

    replace_folder(aside, target)

    assert [path.name for path in tmp_path.rglob("*")] == ["model", "new"]


def writes(path: Path) -> Iterator[int]:
    """Lines that write a file, but those inside `with written_aside(...)` and its like."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    careful = [
        range(node.lineno, (node.end_lineno or 0) + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.With) and any("written_" in ast.unparse(item) for item in node.items)
    ]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(node.lineno in lines for lines in careful):
            continue
        modes = [value.value for value in node.args if isinstance(value, ast.Constant)]
        is_method = isinstance(node.func, ast.Attribute)
        name = ast.unparse(node.func).rpartition(".")[2]
        opens = name == "open" and any(str(mode).strip("bt+") in {"w", "a", "x"} for mode in modes)
        # write_text alone is that of hf_tasks/files.py.
        if opens or (name in WRITERS and (is_method or name != "write_text")):
            yield node.lineno


def test_every_place_that_writes_a_file_does_so_aside_or_says_why_not():
    package = ROOT / "hf_tasks"
    found = {str(path.relative_to(package)): list(writes(path)) for path in sorted(package.rglob("*.py"))}

    assert {name for name, lines in found.items() if lines} == set(NO_NEED)
