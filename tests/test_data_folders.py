"""Class folders: what is a picture, what is its class, and what is passed over."""

import os

import pytest
from datasets import Image

from hf_tasks.data.folders import PICTURE_SUFFIXES, list_class_folders
from hf_tasks.data.load import load_rows
from hf_tasks.data.sources import FolderSource
from hf_tasks.errors import DataError

pytestmark = pytest.mark.usefixtures("own_cache")


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_the_first_folder_is_the_class_and_rows_are_sorted_by_path(tmp_path):
    touch(tmp_path, "tulip/b.png", "tulip/a.png", "rose/2026/may/c.jpg", "роза/дом и.JPEG")

    rows = load_rows(FolderSource(folder=str(tmp_path)))

    names = ["rose/2026/may/c.jpg", "tulip/a.png", "tulip/b.png", "роза/дом и.JPEG"]
    labels = ["rose", "tulip", "tulip", "роза"]
    assert rows.features["image"] == Image(decode=False)
    assert rows.to_list() == [
        {"image": {"bytes": None, "path": f"{tmp_path}/{name}"}, "path": name, "row": row, "label": label}
        for row, (name, label) in enumerate(zip(names, labels, strict=True), start=1)
    ]


def test_the_order_does_not_depend_on_the_order_of_writing(tmp_path):
    names = [f"{label}/{number}.png" for label in "ab" for number in range(30)]
    touch(tmp_path / "one", *names)
    touch(tmp_path / "other", *reversed(names))

    listings = [list_class_folders(tmp_path / name, key="data.train").paths for name in ("one", "other")]

    assert listings == [sorted(names)] * 2


def test_every_ending_counts_in_any_case(tmp_path):
    names = [f"x/{number}{suffix}" for number, suffix in enumerate(sorted(PICTURE_SUFFIXES))]
    names += [f"x/upper{suffix.upper()}" for suffix in sorted(PICTURE_SUFFIXES)] + ["x/mixed.JpG"]
    touch(tmp_path, *names)

    assert list_class_folders(tmp_path, key="data.train").paths == sorted(names)


def test_what_is_passed_over_is_counted(tmp_path):
    touch(tmp_path, "x/a.png", "x/._a.png", "x/.cache/b.png", ".git/c.png", "x/Thumbs.db", "x/notes.txt")
    touch(tmp_path, "readme.md", "stray.png", "empty/nothing.txt", "x/noending", "x/.png")

    listing = list_class_folders(tmp_path, key="data.train")

    assert (listing.paths, listing.classes) == (["x/a.png"], ["x"])
    assert listing.ignored == {
        "hidden": 4,  # ._a.png, .cache, .git, .png
        "other endings": 4,  # Thumbs.db, notes.txt, nothing.txt, noending
        "outside class folders": 2,
        "class folders without pictures": 1,
    }


def test_links_to_pictures_and_folders_are_followed(tmp_path):
    store = touch(tmp_path / "store", "a.png", "deep/b.png")
    (tmp_path / "data" / "x").mkdir(parents=True)
    (tmp_path / "data" / "x" / "linked.png").symlink_to(store / "a.png")
    (tmp_path / "data" / "y").symlink_to(store)
    (tmp_path / "entry").symlink_to(tmp_path / "data")

    listing = list_class_folders(tmp_path / "entry", key="data.train")

    assert listing.paths == ["x/linked.png", "y/a.png", "y/deep/b.png"]
    assert listing.classes == ["x", "y", "y"]


def test_links_in_a_circle_end(tmp_path):
    touch(tmp_path, "x/a.png", "x/deep/b.png")
    (tmp_path / "x" / "self").symlink_to(tmp_path / "x")
    (tmp_path / "x" / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path)

    assert list_class_folders(tmp_path, key="data.train").paths == ["x/a.png", "x/deep/b.png"]


def test_a_link_to_nothing_is_a_row_whose_file_is_missing(tmp_path):
    touch(tmp_path, "x/a.png")
    (tmp_path / "x" / "gone.png").symlink_to(tmp_path / "nowhere.png")

    assert list_class_folders(tmp_path, key="data.train").paths == ["x/a.png", "x/gone.png"]


def test_names_with_odd_characters_stay_as_they_are(tmp_path):
    names = sorted(["a|b/c, d;e.png", 'quote"s/n\new\tline.png', "back\\slash/%2F.png", "  /<b>.png"])
    touch(tmp_path, *names)

    listing = list_class_folders(tmp_path, key="data.train")

    assert listing.paths == names
    assert listing.classes == [name.split("/")[0] for name in names]


def test_a_name_that_is_not_utf_8_is_told(tmp_path):
    touch(tmp_path, "x/a.png")
    with open(os.fsencode(tmp_path) + b"/x/\xea\xee\xf2.png", "wb"):
        pass

    with pytest.raises(
        DataError, match=r"the file name 'x/\\udcea\\udcee\\udcf2.png' is not UTF-8; rename it"
    ):
        list_class_folders(tmp_path, key="data.train")


@pytest.mark.parametrize("names", [[], ["a.png"], ["x/a.txt"], [".x/a.png"]], ids=str)
def test_a_folder_without_pictures_in_sub_folders_is_told(tmp_path, names):
    touch(tmp_path / "data", *names).mkdir(exist_ok=True)

    with pytest.raises(
        DataError, match=r"data\.train\.folder: no pictures in sub-folders .*/CLASS/NAME\.jpg"
    ):
        load_rows(FolderSource(folder=str(tmp_path / "data")), key="data.train")


@pytest.mark.parametrize("name", ["nowhere", "file.csv"])
def test_what_is_no_folder_is_told(tmp_path, name):
    (tmp_path / "file.csv").touch()

    with pytest.raises(
        DataError, match=rf"data\.train\.folder: no folder {tmp_path}/{name}; wanted one with"
    ):
        load_rows(FolderSource(folder=str(tmp_path / name)), key="data.train")
