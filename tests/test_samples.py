"""The samples on disk, counted again from the files and from scikit-learn's own arrays."""

import csv
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hf_tasks.data.samples import SAMPLES, write_digits, write_digits_multilabel, write_digits_retrieval
from hf_tasks.errors import UserError


def _rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples") / "digits"
    write_digits(folder)
    return folder


@pytest.fixture(scope="module")
def multilabel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples") / "digits-multilabel"
    write_digits_multilabel(folder)
    return folder


def test_a_fifth_of_each_digit_is_in_test(digits):
    train, test = _rows(digits / "train_metadata.csv"), _rows(digits / "test_metadata.csv")

    # 174 to 183 pictures a digit, so 35 to 37 of each are a fifth.
    counts = Counter(row["label"] for row in test)
    assert (len(train), len(test)) == (1437, 360)
    assert sorted(counts) == list("0123456789")
    assert set(counts.values()) <= {35, 36, 37}


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_table_and_the_class_folders_say_the_same(digits, split):
    rows = _rows(digits / f"{split}_metadata.csv")

    files = {path.relative_to(digits).as_posix(): path.parent.name for path in digits.glob(f"{split}/*/*")}
    assert {row["image_path"]: row["label"] for row in rows} == files
    assert len(rows) == len(files)


def test_pictures_and_labels_are_those_of_scikit_learn(digits):
    original = load_digits()

    for path in [*digits.glob("train/*/*.png")][::100]:
        row = int(path.stem)
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", (32, 32))
            means = np.asarray(image, float).reshape(8, 4, 8, 4).mean(axis=(1, 3)) * 16 / 255
        # Bicubic enlarging rounds edges, yet the mean of a block stays near the pixel it came from.
        assert np.abs(means - original.images[row]).mean() < 1
        assert path.parent.name == str(original.target[row])


def test_labels_follow_the_digit(multilabel):
    by_hand = {  # even, prime, has a loop
        0: "101", 1: "000", 2: "110", 3: "010", 4: "100",
        5: "010", 6: "101", 7: "010", 8: "101", 9: "001",
    }  # fmt: skip
    targets = load_digits().target

    rows = _rows(multilabel / "train_metadata.csv") + _rows(multilabel / "test_metadata.csv")

    assert len(rows) == 1797
    for row in rows:
        digit = int(targets[int(row["image_path"].removeprefix("images/").removesuffix(".png"))])
        assert row["even"] + row["prime"] + row["has_a_loop"] == by_hand[digit]


def test_both_samples_hold_the_same_pictures_in_the_same_split(digits, multilabel):
    for split in ("train", "test"):
        one, several = _rows(digits / f"{split}_metadata.csv"), _rows(multilabel / f"{split}_metadata.csv")

        for row, other in zip(one, several, strict=True):
            single, shared = digits / row["image_path"], multilabel / other["image_path"]
            assert single.read_bytes() == shared.read_bytes()


def test_retrieval_trains_on_the_first_five_digits_and_looks_up_the_others(tmp_path, digits):
    write_digits_retrieval(tmp_path)

    found = {
        part: sorted(path.relative_to(tmp_path / part).as_posix() for path in tmp_path.glob(f"{part}/*/*"))
        for part in ("train", "base", "val")
    }
    splits = {
        split: [path.relative_to(digits / split).as_posix() for path in digits.glob(f"{split}/*/*")]
        for split in ("train", "test")
    }
    first = [path for paths in splits.values() for path in paths if path[0] < "5"]
    assert found["train"] == sorted(first)
    assert found["base"] == sorted(path for path in splits["train"] if path[0] >= "5")
    assert found["val"] == sorted(path for path in splits["test"] if path[0] >= "5")


def test_writing_again_into_the_same_folder_gives_the_same_bytes(digits):
    before = {path: path.read_bytes() for path in digits.rglob("*") if path.is_file()}

    write_digits(digits)

    assert {path: path.read_bytes() for path in digits.rglob("*") if path.is_file()} == before


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "train_metadata.csv").write_text("mine")

    with pytest.raises(UserError, match="is not empty, and not written by `hf-tasks sample digits`"):
        write_digits(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["train_metadata.csv"]


def test_one_sample_does_not_overwrite_another(digits):
    with pytest.raises(UserError, match="not written by `hf-tasks sample digits-multilabel`"):
        write_digits_multilabel(digits)


def test_a_file_in_place_of_the_folder_is_a_user_error(tmp_path):
    (tmp_path / "digits").touch()

    with pytest.raises(UserError, match="is a file; wanted a new or empty folder"):
        write_digits(tmp_path / "digits")


def test_the_list_of_samples_is_had_without_heavy_imports():
    program = (
        "import sys, hf_tasks.data.samples; sys.exit(bool({'sklearn', 'numpy', 'PIL'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert set(SAMPLES) == {"digits", "digits-multilabel", "digits-retrieval", "text-pairs", "text"}
