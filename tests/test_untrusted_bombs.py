"""Small files that ask for much memory, time or disk are refused before they are given it."""

import csv
import json
import os
import resource
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_program
from PIL import Image

from hf_tasks.data.load import load_rows
from hf_tasks.data.sources import TableSource
from hf_tasks.data.tables import read_table
from hf_tasks.errors import DataError, RecipeError
from hf_tasks.images import decode
from hf_tasks.images.augmentation import load_augmentation
from hf_tasks.images.decode import load_rgb, load_rgb_fast, load_small, require_readable
from hf_tasks.images.look import look_at
from hf_tasks.recipe import load_recipe

SIDE = 60_000
READERS: dict[str, Callable] = {
    "exact": load_rgb,
    "fast": lambda image: load_rgb_fast(image, shorter_side=32),
    "small": lambda image: load_small(image, side=32),
    "checked": require_readable,
}


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(side: int = SIDE) -> bytes:
    """All of its rows are there: zeros, packed a thousand times smaller; the text of `declared` has none."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1 + side // 8) * side, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def saved(kind: str) -> bytearray:
    content = BytesIO()
    Image.new("RGB", (64, 48), "teal").save(content, kind)
    return bytearray(content.getvalue())


def declared(kind: str) -> bytes:
    """A picture of 64 x 48 pixels whose header says that it has more than the readers take."""
    content = saved(kind)
    if kind == "JPEG":
        place = content.index(b"\xff\xc0") + 5
        content[place : place + 4] = struct.pack(">HH", SIDE, SIDE)
    elif kind == "GIF":
        content[6:10] = struct.pack("<HH", SIDE, SIDE)
    elif kind == "BMP":
        content[18:26] = struct.pack("<ii", SIDE, SIDE)
    elif kind == "TIFF":
        for tag in (256, 257):
            place = content.index(struct.pack("<HH", tag, 4)) + 8
            content[place : place + 4] = struct.pack("<I", SIDE)
    elif kind == "WEBP":  # a canvas of its largest side around the same frame
        size = (16_383).to_bytes(3, "little") * 2
        extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + size
        content[12:12] = extended
        content[4:8] = struct.pack("<I", len(content) - 8)
    return bytes(content)


BOMBS = {"PNG": png_bomb(), **{kind: declared(kind) for kind in ("JPEG", "GIF", "BMP", "TIFF", "WEBP")}}


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("read", READERS)
def test_a_declared_size_is_refused_before_anything_is_decoded(kind, read):
    before = peak_bytes()

    with pytest.raises(DataError, match=r"bomb: not a usable picture: it has more than 89,478,485 pixels"):
        READERS[read]({"path": "bomb", "bytes": BOMBS[kind]})

    # A bit a pixel of the smallest would be 450 MB.
    assert peak_bytes() - before < 50e6


def test_what_pillow_only_warns_of_is_refused_too():
    with pytest.raises(DataError, match="more than 89,478,485 pixels"):
        load_rgb({"path": "bomb.png", "bytes": png_bomb(10_000)})


def test_pillow_and_this_program_draw_the_same_line():
    assert decode.MOST_PIXELS == Image.MAX_IMAGE_PIXELS


def test_no_other_program_is_started_to_decode_a_picture():
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"

    with pytest.raises(DataError, match="of no known picture format"):
        load_rgb({"path": "drawing.png", "bytes": script})


def test_a_file_without_an_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "hollow.png").open("wb") as file:
        file.truncate(2**41)

    with pytest.raises(DataError, match=r"pipe\.png: not a usable picture: it is a device or a pipe"):
        load_rgb({"path": str(tmp_path / "pipe.png"), "bytes": None})
    with pytest.raises(DataError, match=r"hollow\.png: .* 2,199,023,255,552 bytes, at most 1,073,741,824"):
        load_rgb({"path": str(tmp_path / "hollow.png"), "bytes": None})


def test_a_check_tells_of_a_bomb_as_of_any_broken_picture():
    facts = look_at({"path": "bomb.png", "bytes": BOMBS["PNG"]})

    assert (facts.fault, facts.reason) == (
        "unreadable", "it has more than 89,478,485 pixels; save it smaller"
    )  # fmt: skip


def test_predict_answers_for_the_others_and_gives_a_bomb_its_error(digits_run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(bytes(saved("PNG")))
    (tmp_path / "in/b.png").write_bytes(BOMBS["PNG"])

    done = run_program("predict", digits_run, "in", "--out", "answers.csv", folder=tmp_path)

    with (tmp_path / "answers.csv").open() as file:
        errors = {Path(row["path"]).name: row["error"] for row in csv.DictReader(file)}
    assert done.returncode == 2
    assert errors["a.png"] == ""
    assert "more than 89,478,485 pixels" in errors["b.png"]


def test_deeply_nested_lines_of_a_table_are_named(tmp_path, own_cache):
    deep = {levels: "[" * levels + '"x"' + "]" * levels for levels in (5, 30, 900, 100_000)}
    lines = [json.dumps({"image_path": "a.png", "label": "x"})]
    lines += ['{"image_path": "a.png", "label": "x", "more": ' + text + "}" for text in deep.values()]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))

    with pytest.raises(DataError, match="that are not a JSON object: 3;") as refused:
        load_rows(TableSource(table=str(tmp_path / "a.jsonl")))

    assert [line.split(":")[0].strip() for line in str(refused.value).splitlines()[1:]] == [
        "line 3", "line 4", "line 5"
    ]  # fmt: skip


def laughs(last: str) -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return "\n".join([*lines, last])


def test_aliases_of_aliases_are_refused_in_a_recipe_and_in_augmentations(tmp_path):
    (tmp_path / "bomb.yaml").write_text(laughs("task: image-classification"))
    (tmp_path / "augmentation.yaml").write_text(laughs("transforms: [HorizontalFlip]"))

    with pytest.raises(RecipeError, match="aliases that repeat themselves too often"):
        load_recipe(tmp_path / "bomb.yaml")
    with pytest.raises(RecipeError, match=r"aliases .* are not taken"):
        load_augmentation(str(tmp_path / "augmentation.yaml"))


@pytest.mark.parametrize("column", ["image", "text"])
def test_a_small_parquet_file_does_not_fill_disk_and_memory(tmp_path, own_cache, column):
    kind, rows = (pa.binary(), 40) if column == "image" else (pa.string(), 400_000)
    values = pa.array([bytes(40_000_000) if column == "image" else "x" * 4000], kind)
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), values)
    labels = ["a", "b"] * (rows // 2)
    pq.write_table(pa.table({column: cells, "label": labels}), tmp_path / "bomb.parquet", compression="zstd")

    with pytest.raises(DataError, match="grows to more than 1,073,741,824, as decompression bombs do"):
        for _ in read_table(tmp_path / "bomb.parquet", encoding="utf-8", key="data.train")[1]:
            pass

    assert (tmp_path / "bomb.parquet").stat().st_size < 1_000_000
