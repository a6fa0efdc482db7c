"""The rows of a run, from a recipe's `data:` section to both splits; counted again from the files."""

import csv
import json
import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from hf_tasks.errors import DataError
from hf_tasks.tasks.image_classification.data import prepare_splits
from hf_tasks.tasks.image_classification.settings import Settings

pytestmark = pytest.mark.usefixtures("own_cache")

PICTURES = 40


@pytest.fixture
def folder(tmp_path):
    """Pictures 0.png to 39.png, each of its own gray."""
    (tmp_path / "images").mkdir()
    for number in range(PICTURES):
        Image.new("L", (4, 4), 6 * number).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def write_table(path, labels, *, first=0, column="label"):
    """A row a label, of the pictures from number `first` on."""
    rows = [[f"images/{number}.png", label] for number, label in enumerate(labels, start=first)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image_path", column], *rows])
    return {"table": str(path)}


def settings_of(data, **sections) -> Settings:
    return Settings.model_validate({"data": data, "model": {"name": "any"}, **sections})


def prepare(data, **sections):
    return prepare_splits(settings_of(data, **sections))


def refusal(data, **sections) -> str:
    with pytest.raises(DataError, match=r"^data\.") as refused:
        prepare(data, **sections)
    return str(refused.value)


def test_the_origins_layout_loads_with_three_lines(folder, monkeypatch):
    monkeypatch.chdir(folder)
    write_table(folder / "train_metadata.csv", "abcab" * 4)
    write_table(folder / "test_metadata.csv", "cab", first=20)
    section = """
    train: {table: train_metadata.csv, images: .}
    validation: {table: test_metadata.csv, images: .}
    columns: {image: image_path, label: label}
    """

    splits = prepare(yaml.safe_load(section))

    assert splits.class_names == ("a", "b", "c")
    assert not splits.is_multilabel
    expected = [{"a": 0, "b": 1, "c": 2}[label] for label in "abcab" * 4]
    assert splits.train["label"][:] == splits.labels(splits.train).tolist() == expected
    assert splits.validation["label"][:] == [2, 0, 1]
    assert splits.train[3] == {
        "image": {"bytes": None, "path": f"{folder}/images/3.png"},
        "path": "images/3.png",
        "row": 4,
        "label": 0,
    }


def test_the_origins_multilabel_layout_loads_with_three_lines(folder, monkeypatch):
    monkeypatch.chdir(folder)
    flags = np.random.default_rng(0).integers(0, 2, (20, 3))
    frame = pd.DataFrame(flags, columns=["class_10", "class_2", "class_1"])
    frame.insert(0, "image_path", [f"images/{number}.png" for number in range(20)])
    frame.to_csv("train_metadata.csv", index=False)
    frame[:7].to_csv("test_metadata.csv", index=False)
    section = """
    train: {table: train_metadata.csv, images: .}
    validation: {table: test_metadata.csv, images: .}
    columns: {image: image_path, labels: [class_10, class_2, class_1]}
    """

    splits = prepare(yaml.safe_load(section))

    expected = frame[["class_1", "class_10", "class_2"]].to_numpy(np.float32)
    assert splits.class_names == ("class_1", "class_10", "class_2")
    assert splits.is_multilabel
    np.testing.assert_array_equal(splits.labels(splits.train), expected, strict=True)
    np.testing.assert_array_equal(splits.labels(splits.validation), expected[:7], strict=True)
    np.testing.assert_array_equal(splits.train["labels"][:], expected)


@pytest.mark.parametrize("kind", ["table", "folder", "parquet"])
def test_tables_and_class_folders_of_the_same_pictures_give_the_same_labels(folder, kind):
    labels = ["кот", "пёс", "кит"] * 4
    table = write_table(folder / "a.csv", labels)
    for number, label in enumerate(labels):
        (folder / "classes" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "images" / f"{number}.png", folder / "classes" / label)
    pd.read_csv(folder / "a.csv").to_parquet(folder / "a.parquet")
    source = {"folder": {"folder": str(folder / "classes")}, "parquet": {"table": str(folder / "a.parquet")}}

    splits = prepare({"train": source.get(kind, table), "validation": table})

    assert splits.class_names == ("кит", "кот", "пёс")
    by_picture = {
        row["image"]["path"].split("/")[-1]: splits.class_names[row["label"]] for row in splits.train
    }
    assert by_picture == {f"{number}.png": label for number, label in enumerate(labels)}


def test_classes_are_those_of_the_training_rows_alone(folder):
    train = write_table(folder / "train.csv", ["10", "9", "2"] * 4)
    validation = write_table(folder / "validation.csv", ["9", "9"], first=20)

    splits = prepare({"train": train, "validation": validation})

    assert splits.class_names == ("2", "9", "10")
    assert splits.validation["label"][:] == [1, 1]
    assert splits.facts["classes_not_in_validation"] == ["2", "10"]


def test_a_label_that_no_training_row_has_is_told_with_its_rows(folder):
    train = write_table(folder / "train.csv", "abab")
    validation = write_table(folder / "validation.csv", "acbd", first=20)

    message = refusal({"train": train, "validation": validation})

    assert message == (
        f"data.validation ({folder}/validation.csv): labels that no training row has: 2; "
        "mend them, or add such rows to the training data; known are a, b"
        "\n  row 2, images/21.png: 'c'\n  row 4, images/23.png: 'd'"
    )


def test_a_fraction_is_split_off_by_class_and_seed(folder):
    labels = "aaab" * 10
    data = {"train": write_table(folder / "a.csv", labels), "validation": 0.2}

    splits, again, other = (prepare({**data, "split_seed": seed}) for seed in (0, 0, 1))

    counts = Counter(labels[row - 1] for row in splits.validation["row"][:])
    assert counts == {"a": 6, "b": 2}
    assert sorted(splits.train["row"][:] + splits.validation["row"][:]) == list(range(1, 41))
    assert again.validation["row"][:] == splits.validation["row"][:]
    assert again.facts == splits.facts
    assert other.validation["row"][:] != splits.validation["row"][:]


def test_the_split_and_the_fingerprint_do_not_depend_on_where_the_data_lies(folder, tmp_path_factory):
    write_table(folder / "a.csv", "ab" * 20)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "moved"
    shutil.copytree(folder, elsewhere)

    here, there = (prepare({"train": {"table": str(place / "a.csv")}}) for place in (folder, elsewhere))

    assert here.validation["path"][:] == there.validation["path"][:]
    assert here.facts["fingerprint"] == there.facts["fingerprint"]


@pytest.mark.parametrize("change", ["label", "order", "size"])
def test_the_fingerprint_tells_other_rows_apart(folder, change):
    data = {
        "train": write_table(folder / "a.csv", "ab" * 10),
        "validation": write_table(folder / "b.csv", "ab"),
    }
    before = prepare(data).facts["fingerprint"]

    if change == "size":
        Image.new("RGB", (9, 9), "red").save(folder / "images" / "7.png")
    else:
        write_table(folder / "a.csv", "ba" * 10 if change == "order" else "ab" * 9 + "bb")

    assert prepare(data).facts["fingerprint"] != before


def test_facts_are_counts_of_the_files_and_can_be_written_as_json(folder):
    train = write_table(folder / "train.csv", "aaab")
    (folder / "classes" / "a").mkdir(parents=True)
    (folder / "classes" / "notes.txt").touch()
    shutil.copy(folder / "images" / "9.png", folder / "classes" / "a")

    facts = prepare({"train": train, "validation": {"folder": str(folder / "classes")}}).facts

    assert facts.pop("fingerprint").isalnum()
    assert json.loads(json.dumps(facts)) == {
        "classes": ["a", "b"],
        "train": {"rows": 4, "rows_per_class": {"a": 3, "b": 1}},
        "validation": {"rows": 1, "rows_per_class": {"a": 1, "b": 0}},
        "classes_not_in_validation": ["b"],
        "classes_with_one_training_row": ["b"],
        "sources": {
            "train": {**train, "images": None, "encoding": "utf-8"},
            "validation": {"folder": str(folder / "classes")},
        },
        "ignored_files": {"validation": {"outside class folders": 1}},
        "skipped": [],
    }


def test_the_head_is_the_first_rows_of_both(folder):
    splits = prepare({"train": write_table(folder / "a.csv", "ab" * 10), "validation": 0.2})

    head = splits.head(5)

    assert head.train["row"][:] == splits.train["row"][:5]
    assert head.validation["row"][:] == splits.validation["row"][:]
    assert head.facts == splits.facts


def test_unreadable_pictures_of_both_splits_are_told_together(folder):
    (folder / "images" / "1.png").write_text("image_path,label")
    (folder / "images" / "20.png").unlink()
    train = write_table(folder / "train.csv", "abab")
    validation = write_table(folder / "validation.csv", "ab", first=20)

    message = refusal({"train": train, "validation": validation})

    heads = [line for line in message.split("\n") if not line.startswith("  ")]
    assert heads[0].startswith(f"data.train ({folder}/train.csv): pictures that cannot be decoded: 1; ")
    assert heads[1].startswith(
        f"data.validation ({folder}/validation.csv): picture files that are not there: 1; "
    )
    assert "\n  row 2, images/1.png: " in message
    assert "\n  row 1, images/20.png: " in message


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("a", "'a' is the only class; wanted at least two to tell apart"),
        ("aaaaa", "'a' is the only class; wanted at least two to tell apart"),
        ("ab", "no row of 2 can be split off: one picture a class"),
        (
            ["a", "a ", "b"],
            "classes that differ only in spaces around them, '.0' or Unicode form (NFC, NFD): 'a' and 'a '",
        ),
        (
            ["1", "1.0", "2"],
            "classes that differ only in spaces around them, '.0' or Unicode form (NFC, NFD): '1' and '1.0'",
        ),
    ],
)
def test_rows_that_cannot_be_learned_from_are_told(folder, labels, expected):
    assert expected in refusal({"train": write_table(folder / "a.csv", labels)})


def test_three_pictures_are_enough(folder):
    splits = prepare({"train": write_table(folder / "a.csv", "aba")})

    assert (len(splits.train), len(splits.validation)) == (2, 1)
    assert splits.train.unique("label") in ([0, 1], [1, 0])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"label": "lable"}, "data.columns.label: no column 'lable' in data.train ("),
        ({"image": "photo"}, "data.columns.image: no column 'photo' in "),
        ({"labels": ["cat"]}, "data.columns.labels[0]: no column 'cat' in data.train ("),
    ],
)
def test_missing_columns_are_told(folder, columns, expected):
    assert expected in refusal({"train": write_table(folder / "a.csv", "abab"), "columns": columns})


def test_label_columns_without_any_positive_row_are_told(folder):
    lines = ["image_path,a,b,c", *(f"images/{row}.png,1,0,0" for row in range(4))]
    (folder / "a.csv").write_text("\n".join(lines))

    message = refusal({"train": {"table": str(folder / "a.csv")}, "columns": {"labels": ["a", "b", "c"]}})

    assert message.endswith("classes without a positive row: b, c; add rows of them, or leave them out")


def test_problems_of_labels_and_of_pictures_are_told_together(folder):
    (folder / "images" / "1.png").write_bytes(b"no picture")
    train = write_table(folder / "train.csv", ["a", "b", ""])
    validation = write_table(folder / "validation.csv", ["a", "c", ""], first=38)

    message = refusal({"train": train, "validation": validation})

    found = [line for line in message.splitlines() if line.startswith("data.")]
    assert [line.partition("): ")[2].partition(": 1;")[0] for line in found] == [
        "rows without a label in column 'label'",
        "pictures that cannot be decoded",
        "rows without a label in column 'label'",
        "picture files that are not there",
        "labels that no training row has",
    ]
