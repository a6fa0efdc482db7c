"""Planted faults of pictures, each found and told by hand-made findings."""

from contextlib import contextmanager

import datasets
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from hf_tasks.contract.examination import FoundRow
from hf_tasks.data.load import PICTURE
from hf_tasks.images.findings import find_near_duplicates, find_picture_faults, near_pairs
from hf_tasks.images.look import PictureFacts, difference_hash, look_at, look_at_all

CHINA, FLOWER = (Image.fromarray(pixels) for pixels in load_sample_images().images)


def facts_of(path) -> PictureFacts:
    return look_at({"bytes": None, "path": str(path)})


def find(names_and_facts: dict[str, PictureFacts]) -> list:
    rows = [FoundRow("train", number, name) for number, name in enumerate(names_and_facts, start=1)]
    return find_picture_faults(rows, list(names_and_facts.values()), image_size=64)


def test_files_that_are_no_pictures_are_told_by_what_they_lack(tmp_path):
    CHINA.save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("a note")
    names = ["whole.jpg", "cut.jpg", "empty.jpg", "text.jpg", "gone.jpg"]

    found = find({name: facts_of(tmp_path / name) for name in names})

    told = {finding.kind: [str(row) for row in finding.rows] for finding in found}
    assert told == {
        "picture files that are not there": [f"train row 5, gone.jpg: no file {tmp_path / 'gone.jpg'}"],
        "picture files without content": ["train row 3, empty.jpg: no content"],
        "pictures that cannot be decoded": [
            "train row 2, cut.jpg: the file is cut off",
            "train row 4, text.jpg: the file is of no known picture format",
        ],
    }
    assert all(finding.severity == "error" and finding.rows[0].is_left_out for finding in found)


def test_a_cell_without_a_path_and_embedded_bytes_without_content_are_faults():
    assert look_at({"bytes": None, "path": None}).fault == "missing"
    assert look_at({"bytes": b"", "path": None}).fault == "empty"


def test_a_picture_of_another_format_than_its_ending_says_is_told(tmp_path):
    FLOWER.save(tmp_path / "flower.jpg", format="PNG")
    FLOWER.save(tmp_path / "right.JPEG", format="JPEG")

    [found] = find({name: facts_of(tmp_path / name) for name in ("flower.jpg", "right.JPEG")})

    assert (found.severity, found.first(2)) == ("warning", ["train row 1, flower.jpg: is PNG"])
    assert not found.rows[0].is_left_out


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        ((15, 30), "tiny pictures, a side below 16 pixels"),
        ((16, 30), None),
        ((6001, 4000), "huge pictures, above 24 million pixels"),
        ((6000, 4000), None),
        ((401, 100), "odd shapes, a side over 4 times the other"),
        ((100, 400), None),
    ],
)
def test_unusual_sizes_are_told_from_the_bound_on(size, kind):
    facts = PictureFacts(width=size[0], height=size[1], format="PNG")

    found = find({"a.png": facts})

    assert [finding.kind for finding in found] == ([] if kind is None else [kind])


def test_the_hash_compares_the_halves_of_each_place():
    pixels = np.tile(np.arange(16, 0, -1, dtype=np.uint8)[None, :, None] * 10, (16, 1, 3))
    pixels[14:] = pixels[14:, ::-1]

    found = difference_hash(pixels.tobytes())

    assert found == 0xFFFFFFFFFFFFFF00  # seven rows of places fall to the right, the last one rises


def test_a_scaled_compressed_or_brighter_copy_is_near_and_another_picture_is_not(tmp_path):
    CHINA.save(tmp_path / "0.png")
    CHINA.resize((320, 213)).save(tmp_path / "1.jpg", quality=70)
    CHINA.point(lambda level: min(255, level + 3)).save(tmp_path / "2.webp", quality=90)
    FLOWER.save(tmp_path / "3.png")
    CHINA.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "4.png")
    CHINA.crop((100, 60, 640, 427)).save(tmp_path / "5.png")
    facts = [facts_of(path) for path in sorted(tmp_path.iterdir())]

    pairs = near_pairs(facts)

    assert {place for pair in pairs for place in pair} == {0, 1, 2}


def test_pairs_are_those_that_a_slow_comparison_finds():
    generator = np.random.default_rng(0)
    bases = generator.integers(0, 2**63, 40, dtype=np.uint64)
    hashes = [int(base) ^ (1 << int(bit)) for base in bases for bit in generator.choice(64, 3, replace=False)]
    facts = [
        PictureFacts(difference_hash=code, likeness=bytes(768), content=str(index))
        for index, code in enumerate(hashes)
    ]

    found = near_pairs(facts)

    partners = [
        {two for two in range(one + 1, len(hashes)) if (hashes[one] ^ hashes[two]).bit_count() <= 3}
        for one in range(len(hashes))
    ]
    assert [one for one, _ in found] == [one for one, others in enumerate(partners) if others]
    assert all(other in partners[one] for one, other in found)


def test_equal_bytes_and_flat_pictures_of_other_colours_are_not_near(tmp_path):
    colours = ["red", "blue", "lime"]
    facts = []
    for name in colours:
        Image.new("RGB", (64, 64), name).save(tmp_path / f"{name}.png")
        facts += [facts_of(tmp_path / f"{name}.png")] * 2

    assert near_pairs(facts) == []


def test_near_pictures_are_told_by_the_worst_that_is_true_of_them(tmp_path):
    for name, size in {"a.png": (640, 427), "b.png": (600, 400), "c.png": (320, 214)}.items():
        CHINA.resize(size).save(tmp_path / name)
    facts = [facts_of(path) for path in sorted(tmp_path.iterdir())]
    rows = [FoundRow("train", 1, "a.png"), FoundRow("train", 2, "b.png"), FoundRow("validation", 1, "c.png")]

    same_side = find_near_duplicates(rows[:2], facts[:2], [0, 0])
    both_sides = find_near_duplicates(rows[1:], facts[1:], [0, 0])
    other_label = find_near_duplicates(rows[1:], facts[1:], [0, 1])
    assert find_near_duplicates(rows[1:], facts[1:], [0, None]) == []

    assert [(f.severity, f.kind) for f in (*same_side, *both_sides, *other_label)] == [
        ("note", "nearly the same pictures again"),
        ("warning", "nearly the same pictures to train on and to measure on"),
        ("warning", "nearly the same pictures with different labels"),
    ]
    assert same_side[0].first(1) == ["train row 1, a.png ~ train row 2, b.png"]
    assert not any(row.is_left_out for finding in (*same_side, *both_sides) for row in finding.rows)


def test_many_pictures_are_looked_at_in_order(tmp_path):
    images = []
    for number in range(20):
        Image.new("RGB", (20 + number, 10)).save(tmp_path / f"{number}.png")
        images.append({"bytes": None, "path": str(tmp_path / f"{number}.png")})
    rows = datasets.Dataset.from_dict({"image": images}, datasets.Features({"image": PICTURE}))
    told, done = [], []

    @contextmanager
    def progress(description, total):
        told.append(total)
        yield done.append

    facts = look_at_all([rows.select(range(15, 20)), rows.select(range(3, 15))], progress)

    assert [fact.width for fact in facts] == [*range(35, 40), *range(23, 35)]
    assert told == [17]
    assert sum(done) == 17
