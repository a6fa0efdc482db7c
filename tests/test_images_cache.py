"""The cache of decoded pictures: what is in it, what a kill or a damaged disk does to it."""

import os
import pickle
import shutil
from contextlib import contextmanager
from io import BytesIO

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from transformers import TimmWrapperImageProcessor

from hf_tasks.data.order import ExampleKey
from hf_tasks.errors import DataError
from hf_tasks.images.augmentation import load_augmentation
from hf_tasks.images.cache import PackedPictures, cache_folder, pack_pictures, picture_keys
from hf_tasks.images.dataset import TrainingPictures, ValidationPictures, packed_pictures
from hf_tasks.images.decode import load_rgb
from hf_tasks.images.transform import TrainTransform, ValidationTransform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRAIN = TrainTransform(load_augmentation("medium"), seed=0, image_size=(32, 32), mean=MEAN, std=STD)


@contextmanager
def silent(description: str, total: int):
    yield lambda pictures: None


def validation_transform(**changes) -> ValidationTransform:
    config = {
        "input_size": [3, 32, 32],
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "crop_pct": 0.9,
    }
    return ValidationTransform(TimmWrapperImageProcessor({**config, **changes}))


@pytest.fixture
def rows(tmp_path, own_cache, odd_pictures) -> datasets.Dataset:
    """Large JPEG files, 70 small PNG files (more than a pack holds at least), one picture held as bytes."""
    generator = np.random.default_rng(0)
    paths = [str(path) for path in odd_pictures]
    for number in range(70):
        paths.append(str(tmp_path / f"{number}.png"))
        pixels = generator.integers(0, 256, (20 + number % 3, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(paths[-1])
    stream = BytesIO()
    Image.fromarray(generator.integers(0, 256, (50, 40, 3), dtype=np.uint8)).save(stream, "PNG")
    images = [{"path": path, "bytes": None} for path in paths]
    images.append({"path": None, "bytes": stream.getvalue()})
    table = {"image": images, "label": list(range(len(images)))}
    return datasets.Dataset.from_dict(table).cast_column("image", datasets.Image(decode=False))


def packed(rows, decoder=TRAIN) -> PackedPictures:
    folder = pack_pictures(rows, decoder, progress=silent).folder
    return PackedPictures(folder, picture_keys(rows))


@pytest.mark.parametrize("kind", ["train", "validation", "training without augmentation"])
def test_packed_pictures_are_the_same_examples_bit_for_bit(rows, kind):
    transform, pixels = (TRAIN, "pixels") if kind == "train" else (validation_transform(), "pixel_values")
    data_set = ValidationPictures if kind == "validation" else TrainingPictures
    pictures = data_set(rows, transform, label_column="label")
    keys = range(len(rows)) if kind == "validation" else [ExampleKey(3, row) for row in range(len(rows))]
    wanted = [pictures[key] for key in keys]

    found = [packed_pictures(pictures, progress=silent)[key] for key in keys]

    assert all(torch.equal(one[pixels], two[pixels]) for one, two in zip(found, wanted, strict=True))
    assert [one["labels"] for one in found] == [one["labels"] for one in wanted]


@pytest.mark.parametrize("changes", [{}, {"crop_pct": 1.0}, {"crop_mode": "squash"}, {"crop_mode": "border"}])
def test_the_two_halves_of_the_validation_transform_are_the_whole(odd_pictures, changes):
    transform = validation_transform(**changes)
    image = {"path": str(odd_pictures[0]), "bytes": None}

    halves = transform.finish(transform.decode(image))

    assert torch.equal(halves, transform(load_rgb(image)))


def test_only_pictures_that_are_new_or_changed_are_decoded(rows, odd_pictures):
    first = pack_pictures(rows, TRAIN, progress=silent)
    again = pack_pictures(rows.select([5, 3, 3, 0]), TRAIN, progress=silent)
    Image.new("RGB", (90, 90), (1, 2, 3)).save(odd_pictures[0])

    changed = pack_pictures(rows, TRAIN, progress=silent)

    assert (first.pictures, first.decoded) == (75, 75)
    assert (again.pictures, again.decoded) == (3, 0)
    assert (changed.pictures, changed.decoded) == (75, 1)
    assert packed(rows)[0].shape == (90, 90, 3)


def test_a_picture_of_the_same_size_that_was_changed_has_another_key(rows, odd_pictures):
    before = picture_keys(rows)
    os.utime(odd_pictures[0], (1, 1))

    after = picture_keys(rows)

    changed = [row for row in range(len(rows)) if rows[row]["image"]["path"] == str(odd_pictures[0])]
    assert changed
    assert np.flatnonzero(before != after).tolist() == changed


def test_a_pack_that_lies_about_what_it_holds_is_damaged_and_mended(rows):
    folder = pack_pictures(rows.select(range(3)), TRAIN, progress=silent).folder
    [pack] = folder.glob("*.arrow")
    with pa.ipc.open_file(str(pack)) as whole:
        schema, first = whole.schema, whole.get_batch(0)
    keys = picture_keys(rows.select(range(3)))
    lies = {
        "keys cut": (schema.with_metadata({"keys": b"odd"}), [first]),
        "fewer pictures": (schema, [first]),
        "an empty batch": (schema, [first, first.slice(0, 0), first]),
    }
    for what, (written, batches) in lies.items():
        with pa.ipc.new_file(str(pack), written) as file:
            for batch in batches:
                file.write_batch(batch)

        with pytest.raises(DataError, match=r"damaged.*hf-tasks prepare"):
            list(PackedPictures(folder, keys))

        mended = pack_pictures(rows.select(range(3)), TRAIN, progress=silent, verify=True)
        assert mended.decoded == 3, what


def test_another_way_to_decode_is_another_cache():
    hard = TrainTransform(load_augmentation("hard"), seed=0, image_size=(32, 32), mean=MEAN, std=STD)
    other_seed = TrainTransform(load_augmentation("medium"), seed=9, image_size=(32, 32), mean=STD, std=STD)
    ways = [TRAIN, hard, validation_transform(), validation_transform(crop_pct=1.0)]

    folders = {cache_folder(way) for way in ways}

    assert len(folders) == 4
    assert cache_folder(other_seed) == cache_folder(TRAIN)


def test_after_a_kill_the_packs_that_were_whole_are_kept(rows):
    folder = pack_pictures(rows, TRAIN, progress=silent).folder
    lost, kept = sorted(folder.glob("*.arrow"))
    pictures_kept = 75 - pack_count(lost)
    lost.rename(folder / f".{lost.name}.part")  # as a kill leaves a pack that is being written
    os.truncate(folder / f".{lost.name}.part", 100)

    again = pack_pictures(rows, TRAIN, progress=silent)

    assert again.decoded == 75 - pictures_kept
    assert sorted(path.name for path in folder.iterdir()) == sorted([".lock", lost.name, kept.name])


def pack_count(pack) -> int:
    return pa.ipc.open_file(str(pack)).num_record_batches


@pytest.mark.parametrize("fault", ["a flipped bit", "a cut file"])
def test_a_damaged_pack_is_an_error_that_names_it_until_it_is_prepared_again(rows, fault):
    wanted = [packed(rows)[row].copy() for row in range(len(rows))]
    pack = max(cache_folder(TRAIN).glob("*.arrow"), key=lambda path: path.stat().st_size)
    if fault == "a flipped bit":
        with pack.open("r+b") as file:
            file.seek(pack.stat().st_size // 2)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))
    else:
        os.truncate(pack, pack.stat().st_size - 1000)

    with pytest.raises(DataError, match=rf"{pack}.*damaged.*hf-tasks prepare"):
        list(PackedPictures(cache_folder(TRAIN), picture_keys(rows)))

    mended = pack_pictures(rows, TRAIN, progress=silent, verify=True)
    assert mended.decoded > 0
    found = packed(rows)
    assert all(np.array_equal(found[row], wanted[row]) for row in range(len(rows)))


def test_a_picture_that_is_not_there_says_to_prepare(rows):
    folder = pack_pictures(rows.select(range(5)), TRAIN, progress=silent).folder

    with pytest.raises(DataError, match=r"70 of 75 pictures are not in the cache.*hf-tasks prepare"):
        PackedPictures(folder, picture_keys(rows))


def test_a_picture_that_cannot_be_decoded_is_named(rows, odd_pictures):
    odd_pictures[2].write_bytes(b"no picture")

    with pytest.raises(DataError, match=rf"^{odd_pictures[2]}: not a usable picture: .* no known"):
        pack_pictures(rows, TRAIN, progress=silent)


def test_packing_draws_nothing_from_the_global_generators(rows):
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)

    pack_pictures(rows, TRAIN, progress=silent)

    assert torch.equal(torch.rand(1), wanted)


def test_a_worker_that_is_not_forked_opens_the_packs_itself(rows):
    pictures = packed(rows)

    copy = pickle.loads(pickle.dumps(pictures))

    assert np.array_equal(copy[4], pictures[4])


def test_the_original_files_are_not_needed_once_all_is_packed(rows, odd_pictures):
    pictures = packed_pictures(TrainingPictures(rows, TRAIN, label_column="label"), progress=silent)
    shutil.rmtree(odd_pictures[0].parent)

    example = pictures[ExampleKey(0, 0)]

    assert example["pixels"].shape == (3, 32, 32)
