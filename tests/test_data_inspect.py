"""Pictures looked at before training: what is refused, how it is told, and what is remembered."""

import csv
import os
import unicodedata
from collections import Counter

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_tasks.data.inspect import require_pictures, slow_progress
from hf_tasks.data.load import load_rows
from hf_tasks.data.sources import TableSource
from hf_tasks.errors import DataError
from hf_tasks.images.decode import require_readable

pytestmark = pytest.mark.usefixtures("own_cache")


def noise(mode="RGB") -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).convert(mode)


def rows_of(folder, names):
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image_path"], *([name] for name in names)])
    return load_rows(TableSource(table=str(folder / "table.csv")))


def refusal(rows, **options) -> str:
    with pytest.raises(DataError, match=r"^data") as refused:
        require_pictures(rows, require_readable, **options)
    return str(refused.value)


class Counted:
    """require_readable, with a count of the pictures it was asked for."""

    def __init__(self):
        self.asked = Counter()

    def __call__(self, image):
        self.asked[image["path"]] += 1
        require_readable(image)


@pytest.fixture
def good(tmp_path):
    """Pictures of every kind that can be used."""
    noise().save(tmp_path / "rgb.jpg")
    noise().save(tmp_path / "MIXED.JpG", "JPEG")
    noise("CMYK").save(tmp_path / "cmyk.jpg")
    noise("L").save(tmp_path / "gray.png")
    noise("P").save(tmp_path / "palette.png")
    noise("P").save(tmp_path / "palette_alpha.png", transparency=3)
    noise("RGBA").save(tmp_path / "alpha.png")
    noise("LA").save(tmp_path / "gray_alpha.png")
    noise("1").save(tmp_path / "one_bit.png")
    Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 20).save(
        tmp_path / "sixteen_bit.png"
    )
    (tmp_path / "linked.png").symlink_to(tmp_path / "gray.png")
    return sorted(path.name for path in tmp_path.iterdir())


def test_pictures_of_every_kind_pass_with_their_sizes(tmp_path, good):
    sizes = require_pictures(rows_of(tmp_path, good), require_readable)

    assert sizes.dtype == np.int64
    assert sizes.tolist() == [os.path.getsize(tmp_path / name) for name in good]


def test_each_kind_of_problem_is_counted_with_its_rows(tmp_path, good):
    whole = (tmp_path / "rgb.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "zero.png").touch()
    (tmp_path / "text.png").write_text("image_path,label\n")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    broken = [
        "cut.jpg",
        "zero.png",
        "text.png",
        "folder.png",
        "pipe.png",
        "gone.png",
        "sub\\a.png",
        "a\0.png",
        "",
    ]

    message = refusal(rows_of(tmp_path, [*good, *broken]), where="data.train (table.csv)")

    first = len(good) + 1
    assert message.split("\n") == [
        "data.train (table.csv): picture files that are not there: 6; "
        "paths are relative to the `images` folder, or else to the table's own",
        f"  row {first + 3}, folder.png: {tmp_path}/folder.png is a folder",
        f"  row {first + 4}, pipe.png: {tmp_path}/pipe.png is no file",
        f"  row {first + 5}, gone.png: {tmp_path}/gone.png: No such file or directory",
        f"  row {first + 6}, sub\\a.png: {tmp_path}/sub\\a.png: No such file or directory; "
        "folders are parted by / here, not by \\",
        f"  row {first + 7}, a\0.png: {tmp_path}/a\0.png: embedded null byte",
        f"  row {first + 8}, : the cell is empty",
        "data.train (table.csv): picture files without content: 1; copy them anew, or remove their rows",
        f"  row {first + 1}, zero.png: no content",
        "data.train (table.csv): pictures that cannot be decoded: 2; mend them, or remove their rows",
        f"  row {first}, cut.jpg: {tmp_path}/cut.jpg: not a usable picture: the file is cut off",
        f"  row {first + 2}, text.png: {tmp_path}/text.png: not a usable picture: the file is of no known "
        "picture format",
    ]


@pytest.mark.parametrize(
    ("content", "kind"),
    [(None, "that are not there"), (b"", "without content"), (b"GIF89a", "that cannot be decoded")],
)
def test_of_many_problems_all_are_counted_and_ten_are_shown(tmp_path, content, kind):
    names = [f"{number}.png" for number in range(200)]
    for name in names[::2]:
        noise("L").resize((4, 4)).save(tmp_path / name)
    for name in names[1::2] if content is not None else []:
        (tmp_path / name).write_bytes(content)

    first, *shown, more = refusal(rows_of(tmp_path, names)).split("\n  ")

    assert f"{kind}: 100; " in first
    assert [line.split(",")[0] for line in shown] == [f"row {row}" for row in range(2, 22, 2)]
    assert more == "and 90 more"


def test_embedded_pictures_are_looked_at_as_well(tmp_path, good):
    whole = (tmp_path / "rgb.jpg").read_bytes()
    images = [{"bytes": content, "path": "same.jpg"} for content in (whole, whole[:500], b"")]
    columns = {"image": images, "path": ["a", "b", "c"], "row": [1, 2, 3]}
    rows = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image(decode=False))

    message = refusal(rows)

    assert "without content: 1; copy them anew, or remove their rows\n  row 3, c: no content" in message
    assert (
        "cannot be decoded: 1; mend them, or remove their rows\n  row 2, b: same.jpg: not a usable" in message
    )
    assert require_pictures(rows.select([0]), require_readable).tolist() == [len(whole)]


def test_pictures_that_passed_are_not_decoded_again_until_one_changes(tmp_path, good):
    rows, ask = rows_of(tmp_path, good), Counted()
    require_pictures(rows, ask)
    once = dict(ask.asked)

    require_pictures(rows, ask)
    again = dict(ask.asked)
    noise().save(tmp_path / "gray.png")
    os.utime(tmp_path / "gray.png", ns=(1, 1))
    require_pictures(rows, ask)

    assert once == again == {f"{tmp_path}/{name}": 1 for name in good}
    assert set(ask.asked.values()) == {2}


def test_pictures_that_failed_are_decoded_again(tmp_path):
    (tmp_path / "a.png").write_bytes(b"GIF89a")
    rows = rows_of(tmp_path, ["a.png"])
    refusal(rows)

    assert "cannot be decoded: 1" in refusal(rows)


def test_where_nothing_can_be_remembered_pictures_are_decoded_each_time(tmp_path, good, own_cache):
    (own_cache / "hf_tasks").touch()
    rows, ask = rows_of(tmp_path, good), Counted()

    sizes = [require_pictures(rows, ask).tolist() for _ in range(2)]

    assert sizes[0] == sizes[1]
    assert set(ask.asked.values()) == {2}


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_in_the_other_unicode_form_is_told(tmp_path, forms):
    written, stored = (unicodedata.normalize(form, "йод.png") for form in forms)
    noise().save(tmp_path / stored)

    message = refusal(rows_of(tmp_path, [written]))

    assert f"No such file or directory; a file of that name is there in Unicode form {forms[1]}" in message


def test_one_picture_in_many_rows_is_named_for_each(tmp_path):
    message = refusal(rows_of(tmp_path, ["gone.png"] * 3))

    assert [line.split(",")[0] for line in message.split("\n  ")[1:]] == ["row 1", "row 2", "row 3"]


def test_no_bar_is_shown_for_short_work(capsys):
    with slow_progress("Looking", 3, after_seconds=60) as advance:
        for _ in range(3):
            advance(1)

    assert capsys.readouterr().err == ""


def test_a_bar_is_shown_for_long_work(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")

    with slow_progress("Looking", 3, after_seconds=0) as advance:
        advance(2)

    shown = capsys.readouterr().err
    assert "Looking" in shown
    assert "2/3" in shown
