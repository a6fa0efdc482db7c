"""From a source to rows on disk: where paths lead, what is cached, who else may write there."""

import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import datasets
import pytest

from hf_tasks.data.load import load_rows
from hf_tasks.data.sources import FolderSource, HubSource, TableSource
from hf_tasks.errors import DataError

pytestmark = pytest.mark.usefixtures("own_cache")

LOAD_AND_COUNT = """
import sys
from hf_tasks.data.load import load_rows
from hf_tasks.data.sources import TableSource
print("ready", flush=True)
sys.stdin.read()
rows = load_rows(TableSource(table=sys.argv[1]))
print(len(rows), rows[-1]["label"])
"""


def write_table(path, *paths, label="x"):
    path.write_text("".join(["image_path,label\n", *(f"{name},{label}\n" for name in paths)]))
    return path


def load(path, *, allow_outside=False, **options):
    return load_rows(TableSource(table=str(path), **options), key="data.train", allow_outside=allow_outside)


def refusal(path, **options) -> str:
    with pytest.raises(DataError, match=r"^data\.train") as refused:
        load(path, **options)
    return str(refused.value)


def picture_paths(rows) -> list[str | None]:
    return [row["image"]["path"] for row in rows]


def snapshot(folder) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_paths_start_from_the_folder_of_pictures_or_of_the_table(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    table = write_table(tmp_path / "a.csv", "a.png", "../b.png", "/srv/c.png", "", "d e/ф.JPG")
    monkeypatch.chdir(tmp_path / "images")

    beside = load(table, allow_outside=True)
    apart = load(table, images="../images", allow_outside=True)

    here, there = str(tmp_path), f"{tmp_path}/images/../images"
    assert picture_paths(beside) == [
        f"{here}/a.png", f"{here}/../b.png", "/srv/c.png", None, f"{here}/d e/ф.JPG"
    ]  # fmt: skip
    assert picture_paths(apart) == [
        f"{there}/a.png", f"{there}/../b.png", "/srv/c.png", None, f"{there}/d e/ф.JPG"
    ]  # fmt: skip
    assert beside["path"][:] == ["a.png", "../b.png", "/srv/c.png", "", "d e/ф.JPG"]


def test_a_home_folder_may_be_written_as_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_table(tmp_path / "a.csv", "a.png")

    rows = load("~/a.csv", images="~")

    assert picture_paths(rows) == [f"{tmp_path}/a.png"]


def test_backslashes_stay_in_the_name(tmp_path):
    rows = load(write_table(tmp_path / "a.csv", "sub\\a.png"))

    assert picture_paths(rows) == [f"{tmp_path}/sub\\a.png"]


def test_rows_are_memory_mapped_and_pictures_not_decoded(tmp_path):
    rows = load(write_table(tmp_path / "a.csv", "a.png"))

    assert isinstance(rows.data, datasets.table.MemoryMappedTable)
    assert rows.features["image"] == datasets.Image(decode=False)
    assert rows[0] == {"image": {"bytes": None, "path": f"{tmp_path}/a.png"}, "path": "a.png", "row": 1,
                       "label": "x"}  # fmt: skip


def test_a_second_time_the_cached_rows_are_taken(tmp_path, own_cache):
    table = write_table(tmp_path / "a.csv", "a.png")
    load(table)
    before = snapshot(own_cache)

    load(table)

    assert snapshot(own_cache) == before


def test_a_changed_table_is_never_taken_for_the_old_one(tmp_path):
    table = write_table(tmp_path / "a.csv", "a.png")
    load(table)
    times = table.stat()

    write_table(table, "b.png")
    os.utime(table, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert load(table)["path"][:] == ["b.png"]


def test_the_same_table_in_another_encoding_is_read_anew(tmp_path):
    (tmp_path / "a.csv").write_bytes("image_path,label\na.png,дом\n".encode())

    assert load(tmp_path / "a.csv", encoding="cp1251")["label"][:] == ["дом".encode().decode("cp1251")]
    assert load(tmp_path / "a.csv")["label"][:] == ["дом"]


def test_a_new_picture_in_a_class_folder_is_seen(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").touch()
    source = FolderSource(folder=str(tmp_path))
    load_rows(source)

    (tmp_path / "x" / "b.png").touch()

    assert load_rows(source)["path"][:] == ["x/a.png", "x/b.png"]


def test_a_broken_table_leaves_nothing_in_the_cache(tmp_path, own_cache):
    (tmp_path / "a.csv").write_text("image_path,label\na.png\n")

    refusal(tmp_path / "a.csv")

    assert [path for path in own_cache.rglob("*") if path.is_file()] == []


def test_nothing_is_written_beside_the_data(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").touch()
    table = write_table(tmp_path / "a.csv", "x/a.png")
    before = snapshot(tmp_path)

    load(table)
    load_rows(FolderSource(folder=str(tmp_path)))

    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "source",
    [lambda pets: TableSource(table=f"{pets}/train.csv"), lambda pets: HubSource(hub=str(pets))],
    ids=["table", "hub"],
)
def test_a_cache_that_cannot_be_written_is_told_with_the_way_out(tmp_path, monkeypatch, source):
    (tmp_path / "file").touch()
    (tmp_path / "pets").mkdir()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "datasets")
    write_table(tmp_path / "pets" / "train.csv", "a.png")

    with pytest.raises(DataError, match=r"Not a directory: .*; .*\(HF_DATASETS_CACHE sets another folder"):
        load_rows(source(tmp_path / "pets"), key="data.train")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_table_that_may_not_be_read_is_told(tmp_path):
    table = write_table(tmp_path / "a.csv", "a.png")
    table.chmod(0)

    assert "Permission denied" in refusal(table)


@pytest.mark.slow
def test_two_processes_may_load_at_once(tmp_path):
    table = write_table(tmp_path / "a.csv", *(f"{row}.png" for row in range(30_000)))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", LOAD_AND_COUNT, str(table)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}

    programs = [subprocess.Popen(command, **pipes) for _ in range(2)]
    ready = [program.stdout.readline() for program in programs]
    for program in programs:
        program.stdin.close()
    answers = [program.stdout.read() for program in programs]

    assert ready == ["ready\n"] * 2
    assert [program.wait() for program in programs] == [0, 0]
    assert answers == ["30000 x\n"] * 2
    assert len(list((tmp_path / "home" / "datasets" / "hf_tasks").iterdir())) == 1


def test_fifty_thousand_rows_take_seconds_and_little_memory(tmp_path):
    notes = "a remark of the photographer " * 5
    lines = (f"{row}.png,class {row % 100},{notes}{row}\n" for row in range(50_000))
    (tmp_path / "a.csv").write_text("image_path,label,notes\n" + "".join(lines))
    size = (tmp_path / "a.csv").stat().st_size

    begin = time.monotonic()
    rows = load(tmp_path / "a.csv")
    seconds = time.monotonic() - begin

    assert (len(rows), rows[-1]["label"], rows[-1]["row"]) == (50_000, "class 99", 50_000)
    # 0.2 s on one core; the rest is for machines that are busy.
    assert seconds < 10
    (tmp_path / "b.csv").write_bytes((tmp_path / "a.csv").read_bytes())
    tracemalloc.start()
    load(tmp_path / "b.csv")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Python texts of 10,000 rows at a time: 0.98 of the file; all rows at once would be 2.85 times its size.
    assert peak < 1.5 * size


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("trian.csv", {}, "trian.csv; did you mean 'train.csv'?"),
        ("nowhere/train.csv", {}, "no file "),
        (".", {}, "is a folder; for class folders write `folder: "),
        (
            "train.csv",
            {"images": "nowhere"},
            "data.train.images: no folder nowhere; wanted the one that picture",
        ),
    ],
)
def test_sources_that_are_not_there_are_told(tmp_path, name, options, expected):
    write_table(tmp_path / "train.csv", "a.png")

    assert expected in refusal(tmp_path / name, **options)
