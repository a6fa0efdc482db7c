"""Indexes on disk: written, added to, thinned out, searched, and refused to another model."""

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_program
from pictures import write_class_pictures
from rich.console import Console
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from hf_tasks import workflow
from hf_tasks.cli import app
from hf_tasks.errors import UserError
from hf_tasks.recipe import load_recipe
from hf_tasks.workflow.index import add_to_index, open_for_search, open_index, remove_from_index, search_index
from hf_tasks.workflow.index_file import FACTS, NAME

RECIPE = """\
task: metric-learning
output: {folder}/run
data:
  train: {{folder: {folder}/train}}
  validation: {{folder: {folder}/train}}
model: {{name: resnet10t, pretrained: false, image_size: 32}}
loss: {{name: normalised-softmax}}
training:
  max_steps: 2
  eval_strategy: "no"
  save_strategy: "no"
  load_best_model_at_end: false
  use_cpu: true
  dataloader_num_workers: 0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, an index of its pictures in `shelf`, and pictures of other colours in `more`."""
    folder = tmp_path_factory.mktemp("index")
    write_class_pictures(folder / "train", classes=3, per_class=4)
    write_class_pictures(folder / "more", classes=2, per_class=2, seed=9)
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
    workflow.run(load_recipe(folder / "recipe.yaml"), console=Console(quiet=True))
    add_to_index(folder / "shelf", folder / "run", [folder / "train"], batch_size=5)
    return folder


@pytest.fixture
def shelf(folder, tmp_path) -> Path:
    """A copy of the index that a test may change."""
    return shutil.copytree(folder / "shelf", tmp_path / "shelf")


def test_an_index_holds_paths_classes_and_unit_vectors(folder, shelf):
    index = open_index(shelf)

    assert set(index.entries) == {str(path) for path in folder.glob("train/*/*.png")}
    assert all(
        Path(path).parent.name == label for path, label in zip(index.entries, index.labels, strict=True)
    )
    np.testing.assert_allclose(np.linalg.norm(index.embeddings_ND, axis=1), 1, atol=1e-6)
    assert (
        index.cutoff_distance == json.loads((folder / "run/model/config.json").read_text())["cutoff_distance"]
    )


def test_a_picture_of_the_index_finds_itself_first(folder, shelf, tmp_path):
    done = search_index(
        open_for_search(shelf), [folder / "train"], tmp_path / "out.csv", count=3, batch_size=5
    )

    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert done == (12, 0)
    for row in rows:
        assert row["neighbour_1"] == row["path"]
        assert row["predicted"] == row["class_1"] == Path(row["path"]).parent.name
        assert float(row["distance_1"]) == pytest.approx(0, abs=1e-6)
        assert float(row["distance_1"]) <= float(row["distance_2"]) <= float(row["distance_3"])
        assert row["is_accepted"] == "True"


def test_pictures_are_added_and_removed_without_touching_the_others(folder, shelf):
    before = open_index(shelf)

    added, broken = add_to_index(shelf, folder / "run", [folder / "more"], batch_size=5)
    removed = remove_from_index(shelf, ["class1", str(folder / "train/class0/0.png")])

    after = open_index(shelf)
    assert (added, broken, removed) == (4, [], 4 + 2 + 1)
    kept = [path for path in before.entries if path in after.entries]
    assert len(kept) == 12 - 4 - 1
    for path in kept:
        old, new = (index.embeddings_ND[index.entries.index(path)] for index in (before, after))
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("way_there", ["", "../train"])
def test_a_path_that_is_there_already_is_embedded_anew_and_not_doubled(folder, shelf, way_there):
    add_to_index(shelf, folder / "run", [folder / "train" / way_there], batch_size=5)

    assert sorted(open_index(shelf).entries) == sorted(open_index(folder / "shelf").entries)


def test_what_several_writers_do_at_once_is_all_done(folder, shelf):
    gone = sorted(folder.glob("train/*/[012].png"))

    with ThreadPoolExecutor(len(gone)) as writers:
        counts = list(writers.map(lambda path: remove_from_index(shelf, [str(path)]), gone))

    assert counts == [1] * 9
    assert set(open_index(shelf).entries) == {str(path) for path in folder.glob("train/*/3.png")}


def test_a_writer_that_was_killed_leaves_the_index_that_was_there(folder, shelf, tmp_path):
    cut_off = tmp_path / "cut_off"
    for place in (shelf, cut_off):
        place.mkdir(exist_ok=True)
        (place / ".index.parquet.part").write_bytes(b"PAR1 and no more")

    before = len(open_index(shelf).entries)
    for place in (shelf, cut_off):
        add_to_index(place, folder / "run", [folder / "more"], batch_size=5)

    assert [len(open_index(place).entries) for place in (shelf, cut_off)] == [before + 4, 4]
    assert sorted(path.name for path in shelf.iterdir()) == [".lock", "index.parquet"]


def test_unreadable_pictures_are_named_and_left_out(folder, shelf, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")

    added, broken = add_to_index(
        shelf, folder / "run", [tmp_path / "bad.png", folder / "more/class0/0.png"], batch_size=5
    )

    assert added == 1
    assert [row["path"] for row in broken] == [str(tmp_path / "bad.png")]


def test_an_index_of_another_model_is_refused(folder, shelf, tmp_path):
    other = shutil.copytree(folder / "run", tmp_path / "run")
    tensors = load_file(other / "model/model.safetensors")
    name = max(tensors, key=lambda name: tensors[name].size)
    tensors[name] += 1
    save_file(tensors, other / "model/model.safetensors", {"format": "pt"})

    with pytest.raises(UserError, match="made by another model"):
        open_for_search(shelf, other)
    with pytest.raises(UserError, match="made by another model"):
        add_to_index(shelf, other, [folder / "more"], batch_size=5)


def test_a_run_that_moved_can_be_named(folder, shelf, tmp_path):
    moved = shutil.copytree(folder / "run", tmp_path / "elsewhere")

    index = open_for_search(shelf, moved)
    done = search_index(index, [folder / "more"], tmp_path / "x.csv", count=99, batch_size=5)

    assert done == (4, 0)


def test_the_program_writes_thins_out_and_searches_an_index(folder, tmp_path, caplog):
    def said(*words):
        return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False).stdout

    run, shelf, out = folder / "run", tmp_path / "shelf", tmp_path / "out.csv"
    caplog.set_level("INFO", logger="hf_tasks")

    written = said("index", run, folder / "train", "--out", shelf)
    thinned = said("index", run, folder / "more", "--out", shelf, "--remove", "class2")
    searched = said("search", shelf, folder / "more", "--k", 2, "--faiss", "--out", out)

    assert written == f"12 added: {shelf}\n"
    assert thinned == f"4 removed: {shelf}\n4 added: {shelf}\n"
    assert searched == f"4 searched: {out}\n"
    assert "% of the 2 nearest, measured on 4 queries" in caplog.text
    assert len(list(csv.DictReader(out.open(newline="")))) == 4


def test_the_program_refuses_an_index_of_another_model_and_forgives_what_is_named_twice(
    folder, shelf, tmp_path
):
    other = shutil.copytree(folder / "run", tmp_path / "other")
    config = json.loads((other / "model/config.json").read_text())
    (other / "model/config.json").write_text(json.dumps({**config, "cutoff_distance": 0.5}))

    refused = run_program("search", shelf, folder / "more", "--run", other, "--out", "x.csv", folder=tmp_path)
    doubled = run_program(
        "index", folder / "run", folder / "train", folder / "train", "--out", shelf, folder=tmp_path
    )
    gone = ["index", folder / "run", "--out", shelf, "--remove", folder / "train/class0/0.png"]
    removed, missing = (run_program(*gone, folder=tmp_path) for _ in range(2))

    assert (refused.returncode, missing.returncode) == (2, 2)
    assert "made by another model" in " ".join(refused.stderr.split())
    assert "neither a path nor a class of this index" in " ".join(missing.stderr.split())
    assert "Traceback" not in refused.stderr + missing.stderr
    assert doubled.stdout == f"12 added: {shelf}\n"
    assert removed.stdout == f"1 removed: {shelf}\n"
    assert len(open_index(shelf).entries) == 11


def test_what_is_no_index_is_told(folder, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")

    with pytest.raises(UserError, match="no index; wanted a folder that `hf-tasks index` has written"):
        open_for_search(tmp_path)
    with pytest.raises(UserError, match="is there and is no index"):
        add_to_index(tmp_path, folder / "run", [folder / "more"], batch_size=5)


def _with_column(table, name, values, kind):
    return table.set_column(table.column_names.index(name), name, pa.array(values, kind))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: table.rename_columns(["__class__", "label", "embedding"]),
        lambda table: table.drop_columns(["label"]),
        lambda table: _with_column(table, "path", [None] * 12, pa.string()),
        lambda table: _with_column(table, "path", list(range(12)), pa.int64()),
        lambda table: _with_column(table, "embedding", [[np.nan, 1.0]] * 12, pa.list_(pa.float32(), 2)),
        lambda table: _with_column(table, "embedding", [["x"]] * 12, pa.list_(pa.string(), 1)),
        lambda table: _with_column(table, "embedding", [[1.0]] * 12, pa.list_(pa.float32())),
        lambda table: table.replace_schema_metadata(
            {FACTS: b'{"run": "", "model_hash": "", "cutoff_distance": "far"}'}
        ),
        lambda table: table.replace_schema_metadata({FACTS: b"[1]"}),
    ],
)  # fmt: skip
def test_a_file_that_holds_something_else_is_a_damaged_index(shelf, spoil):
    table = pq.read_table(shelf / NAME)
    assert len(table) == 12
    pq.write_table(spoil(table), shelf / NAME)

    with pytest.raises(UserError, match=r"shelf: the index is damaged: .*; write it anew"):
        open_for_search(shelf)


def test_a_run_that_is_gone_is_asked_for(folder, shelf):
    facts = json.loads(pq.read_schema(shelf / NAME).metadata[FACTS])
    moved = pq.read_table(shelf / NAME).replace_schema_metadata(
        {FACTS: json.dumps({**facts, "run": "/gone"})}
    )
    pq.write_table(moved, shelf / NAME)

    with pytest.raises(UserError, match="its run is no longer at /gone; say where it is with --run"):
        open_for_search(shelf)
    assert open_for_search(shelf, folder / "run").run_folder == folder / "run"


def test_removing_what_is_not_there_is_told(shelf):
    with pytest.raises(UserError, match="neither a path nor a class of this index"):
        remove_from_index(shelf, ["class7"])
