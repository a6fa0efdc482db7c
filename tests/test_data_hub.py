"""Data sets of the Hub: local folders of every make, and what is said without a network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_tasks.data.hub import source_in
from hf_tasks.data.load import load_rows
from hf_tasks.data.sources import FolderSource, HubSource
from hf_tasks.errors import DataError
from hf_tasks.tasks.image_classification.data import prepare_splits
from hf_tasks.tasks.image_classification.settings import Settings

pytestmark = pytest.mark.usefixtures("own_cache")

NAMES = ["train/кошка/1.png", "train/кошка/2.png", "train/пёс/1.png", "test/пёс/9.png"]
CONTENTS_BY_NAME: dict[str, bytes] = {}

LOAD_TIMED = """
import time
from hf_tasks.data.load import load_rows
from hf_tasks.data.sources import HubSource
begin = time.monotonic()
try:
    load_rows(HubSource(hub="someone/pets"), key="data.train")
except ValueError as error:
    print(error)
print(time.monotonic() - begin)
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures in folders of splits and classes."""
    folder = tmp_path_factory.mktemp("hub") / "pictures"
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / name)
        CONTENTS_BY_NAME[name] = (folder / name).read_bytes()
    return folder


@pytest.fixture
def three_rows(pictures):
    """The three training pictures as a data set of `datasets` itself."""
    paths = [str(pictures / name) for name in NAMES[:3]]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])}
    )
    return datasets.Dataset.from_dict({"image": paths, "label": [1, 1, 0]}, features, split="train")


def load(folder, *, image_column=None, allow_outside=False, **options):
    source = HubSource(hub=str(folder), **options)
    return load_rows(source, key="data.train", image_column=image_column, allow_outside=allow_outside)


def refusal(folder, **options) -> str:
    with pytest.raises(DataError, match=r"^data\.train") as refused:
        load(folder, **options)
    return str(refused.value)


def contents(rows) -> list[bytes]:
    images = (row["image"] for row in rows)
    return [image["bytes"] or Path(image["path"]).read_bytes() for image in images]


def expect_training_rows(rows, paths):
    assert contents(rows) == [CONTENTS_BY_NAME[name] for name in NAMES[:3]]
    assert rows["path"][:] == paths
    assert rows["row"][:] == [1, 2, 3]
    assert rows.features["image"] == datasets.Image(decode=False)


def test_folders_of_splits_and_classes_load(pictures):
    rows = load(pictures)

    expect_training_rows(rows, NAMES[:3])
    assert rows.features["label"].int2str(rows["label"][:]) == ["кошка", "кошка", "пёс"]
    assert load(pictures, split="test")["path"][:] == NAMES[3:]


def test_a_folder_moved_elsewhere_shows_the_same_texts(pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "moved")

    assert load(tmp_path / "moved")["path"][:] == load(pictures)["path"][:]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_saved_dictionary_of_splits_loads(three_rows, tmp_path, split):
    datasets.DatasetDict({"train": three_rows, "validation": three_rows}).save_to_disk(tmp_path / "pets")

    rows = load(tmp_path / "pets", split=split)

    expect_training_rows(rows, [f"pets/{split}/1", f"pets/{split}/2", f"pets/{split}/3"])
    assert isinstance(rows.data.blocks[0][0], datasets.table.MemoryMappedTable)


def test_a_saved_data_set_loads(three_rows, tmp_path):
    three_rows.save_to_disk(tmp_path / "pets")

    rows = load(tmp_path / "pets")

    expect_training_rows(rows, ["pets/train/1", "pets/train/2", "pets/train/3"])


def test_a_saved_data_set_is_not_taken_for_another_split(three_rows, tmp_path):
    three_rows.save_to_disk(tmp_path / "pets")

    message = refusal(tmp_path / "pets", split="validation")

    assert "data.train.split: no split 'validation' in" in message
    assert "holds one data set, saved as train; leave `split` out, or name another folder" in message


def test_a_folder_is_a_data_set_by_its_files_or_by_the_split_that_is_named(pictures, three_rows, tmp_path):
    three_rows.save_to_disk(tmp_path / "saved")
    (tmp_path / "files/data").mkdir(parents=True)
    three_rows.to_parquet(tmp_path / "files/data/test-00000-of-00001.parquet")
    shutil.copytree(pictures / "train", tmp_path / "classes")
    (tmp_path / "classes/notes.csv").write_text("beside class folders")

    found = [
        source_in(tmp_path / "saved", split=None),
        source_in(tmp_path / "files", split=None),
        source_in(tmp_path / "classes", split=None),
        source_in(pictures, split="test"),
    ]

    assert found == [
        HubSource(hub=str(tmp_path / "saved")),
        HubSource(hub=str(tmp_path / "files"), split="test"),
        FolderSource(folder=str(tmp_path / "classes")),
        HubSource(hub=str(pictures), split="test"),
    ]


def test_shuffled_and_chosen_rows_keep_their_order(three_rows, tmp_path):
    three_rows.select([2, 0]).save_to_disk(tmp_path / "pets")

    rows = load(tmp_path / "pets")

    assert contents(rows) == [CONTENTS_BY_NAME[NAMES[2]], CONTENTS_BY_NAME[NAMES[0]]]
    assert rows["row"][:] == [1, 2]


def _with_contents(cell, content):
    """The cell, with the contents of a picture in place of True."""
    if isinstance(cell, dict):
        return {name: _with_contents(part, content) for name, part in cell.items()}
    return content if cell is True else cell


@pytest.mark.parametrize(
    ("column", "paths"),
    [
        ([{"bytes": True, "path": "same.png"}] * 3, ["pets/train/1", "pets/train/2", "pets/train/3"]),
        ([True] * 3, ["pets/train/1", "pets/train/2", "pets/train/3"]),
        ([{"bytes": None, "path": f"../{name}"} for name in NAMES[:3]], [f"../{name}" for name in NAMES[:3]]),
        ([f"../{name}" for name in NAMES[:3]], [f"../{name}" for name in NAMES[:3]]),
    ],
    ids=["structs", "bytes", "structs of paths", "paths"],
)
def test_parquet_files_hold_pictures_in_any_of_four_ways(pictures, tmp_path, column, paths):
    shutil.copytree(pictures, tmp_path, dirs_exist_ok=True)
    filled = [_with_contents(cell, CONTENTS_BY_NAME[name]) for cell, name in zip(column, NAMES, strict=False)]
    (tmp_path / "pets").mkdir()
    pq.write_table(pa.table({"photo": filled, "label": ["x", "x", "y"]}), tmp_path / "pets" / "train.parquet")

    rows = load(tmp_path / "pets", image_column="photo", allow_outside=True)

    expect_training_rows(rows, paths)
    assert "photo" not in rows.features


def test_csv_files_name_pictures_from_their_folder(pictures, tmp_path):
    shutil.copytree(pictures, tmp_path, dirs_exist_ok=True)
    (tmp_path / "pets").mkdir()
    lines = [f"../{name},x\n" for name in NAMES[:3]]
    (tmp_path / "pets" / "train.csv").write_text("".join(["image_path,label\n", *lines]), encoding="utf-8")

    rows = load(tmp_path / "pets", allow_outside=True)

    expect_training_rows(rows, [f"../{name}" for name in NAMES[:3]])


def test_a_part_of_a_split_may_be_asked_for(pictures):
    assert load(pictures, split="train[1:]")["path"][:] == NAMES[1:3]


def test_class_numbers_are_taken_by_their_names(three_rows, tmp_path):
    datasets.DatasetDict({"train": three_rows, "test": three_rows}).save_to_disk(tmp_path / "pets")
    data = {
        "train": {"hub": str(tmp_path / "pets")},
        "validation": {"hub": str(tmp_path / "pets"), "split": "test"},
    }

    splits = prepare_splits(Settings.model_validate({"data": data, "model": {"name": "any"}}))

    # The data set says dog, cat; the classes are sorted.
    assert splits.class_names == ("cat", "dog")
    assert splits.train["label"][:] == [0, 0, 1]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("valdation", "(it has train, validation); did you mean 'validation'?"),
        ("train[:1]", "(it has train, validation); did you mean 'train'?"),
    ],
)
def test_an_unknown_split_of_a_saved_dictionary_is_told(three_rows, tmp_path, split, expected):
    datasets.DatasetDict({"train": three_rows, "validation": three_rows}).save_to_disk(tmp_path / "pets")

    message = refusal(tmp_path / "pets", split=split)

    assert message == f"data.train.split: no split '{split}' in {tmp_path}/pets {expected}"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"split": "valdation"}, "cannot load split 'valdation' of "),
        ({"split": "train[:"}, "cannot load split 'train[:' of "),
        ({"config": "large"}, "configuration 'large': BuilderConfig 'large' not found"),
    ],
)
def test_an_unknown_split_or_configuration_of_files_is_told(pictures, options, expected):
    assert expected in refusal(pictures, **options)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "no data set '"),
        ({"pets.py": "raise SystemExit"}, "Dataset scripts are no longer supported"),
        ({"train.parquet": "PAR1"}, "cannot load split 'train'"),
        ({"dataset_dict.json": "{}"}, "cannot load split 'train'"),
        ({"dataset_dict.json": "["}, "cannot load split 'train'"),
        ({"state.json": "{}"}, "no data set '"),
        ({"state.json": "{}", "dataset_info.json": "{}"}, "cannot load split 'train'"),
        ({"train.csv": "image_path\na.png\n", "README.md": "---\n: [\n---\n"}, "cannot load split 'train'"),
    ],
)
def test_a_broken_folder_is_told(tmp_path, files, expected):
    (tmp_path / "pets").mkdir()
    for name, text in files.items():
        (tmp_path / "pets" / name).write_text(text)

    assert expected in refusal(tmp_path / "pets")


@pytest.mark.parametrize("name", ["./nowhere", "../nowhere", "~/nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_folder_that_is_not_there_is_told(name):
    assert refusal(name) == (
        f"data.train.hub: no folder {name}; wanted a local data set folder, or OWNER/NAME on the Hub"
    )


def test_a_file_is_told_to_be_a_table(tmp_path):
    (tmp_path / "a.csv").touch()

    message = refusal(tmp_path / "a.csv")

    assert message.endswith(f"parquet or jsonl file write `table: {tmp_path}/a.csv`")


@pytest.mark.parametrize("name", ["pets", "someone/pets"])
def test_offline_one_clear_error_comes(name):
    message = refusal(name)

    assert message.startswith(
        f"data.train.hub: cannot reach the Hub for '{name}', and it is not in the cache; "
    )
    assert "\n" not in message


def test_without_a_network_the_error_comes_at_once(tmp_path):
    # Nothing listens on port 9 of this machine.
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path),
    }

    program = subprocess.run(
        [sys.executable, "-c", LOAD_TIMED], env=environment, capture_output=True, text=True, check=True
    )

    message, seconds = program.stdout.splitlines()
    assert message.startswith(
        "data.train.hub: cannot reach the Hub for 'someone/pets', and it is not in the ca"
    )
    # huggingface_hub on its own repeats its question for 23 seconds.
    assert float(seconds) < 5
    # PyTorch has a word with the authors of torchao, where that is installed.
    assert [line for line in program.stderr.splitlines() if "_pytree" not in line] == []


def test_a_data_set_in_the_cache_needs_no_network(tmp_path, own_cache):
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "train.csv").write_text("image_path,label\na.png,x\n")
    load(tmp_path / "pets")
    # Where `datasets` keeps what it has downloaded of someone/pets.
    (own_cache / "datasets" / "pets").rename(own_cache / "datasets" / "someone___pets")

    rows = load("someone/pets", allow_outside=True)

    assert rows["path"][:] == ["a.png"]


def test_progress_bars_are_left_as_they_were(pictures):
    datasets.enable_progress_bars()

    load(pictures)

    assert not datasets.are_progress_bars_disabled()
