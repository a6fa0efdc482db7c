"""Training and validation transforms and the data sets on them: what decides about a picture, what not."""

import pickle
import random
from io import BytesIO

import cv2
import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import TimmWrapperImageProcessor

from hf_tasks.data.order import EpochKeys, ExampleKey
from hf_tasks.errors import UserError
from hf_tasks.images.augmentation import Augmentation, load_augmentation
from hf_tasks.images.augmentation_transforms import TRANSFORMS, build_transform
from hf_tasks.images.dataset import TrainingPictures, ValidationPictures
from hf_tasks.images.decode import load_rgb
from hf_tasks.images.transform import (
    TrainTransform,
    ValidationTransform,
    build_train_transform,
    random_crop,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PICTURE = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def train_transform(augmentation: Augmentation, *, seed: int = 0, image_size=(32, 32)) -> TrainTransform:
    return TrainTransform(augmentation, seed=seed, image_size=image_size, mean=MEAN, std=STD)


def image_processor() -> TimmWrapperImageProcessor:
    config = {
        "input_size": [3, 32, 32],
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "crop_pct": 0.9,
    }
    return TimmWrapperImageProcessor(config)


@pytest.fixture(scope="module")
def rows() -> datasets.Dataset:
    """Nine JPEG files of different sizes, held as bytes, with labels of both kinds."""
    generator = np.random.default_rng(0)
    images = []
    for number in range(9):
        pixels = generator.integers(0, 256, (4, 6, 3), dtype=np.uint8).repeat(10 + number, axis=0)
        stream = BytesIO()
        Image.fromarray(pixels.repeat(20, axis=1)).save(stream, "JPEG")
        images.append({"path": None, "bytes": stream.getvalue()})
    columns = {"image": images, "label": list(range(9)), "labels": [[1.0, 0.0, 1.0]] * 9, "other": ["x"] * 9}
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image(decode=False))


def disturb_global_state(number: int) -> None:
    np.random.seed(number)
    random.seed(number)
    torch.manual_seed(number)
    cv2.setRNGSeed(number)


@pytest.mark.parametrize("name", [*TRANSFORMS, "light", "medium", "hard"])
def test_seed_epoch_and_index_alone_decide_about_a_picture(name):
    required = {"CropAndPad": {"px": 3}, "GridElasticDeform": {"num_grid_xy": [3, 3], "magnitude": 5}}
    if name in TRANSFORMS:
        transform = build_transform(name, {**required.get(name, {}), "p": 1.0})
        augmentation = Augmentation((0.5, 1.0), (transform,))
    else:
        augmentation = load_augmentation(name)
    first, second = train_transform(augmentation), train_transform(augmentation)
    disturb_global_state(1)
    wanted = first(PICTURE, epoch=3, index=5)

    disturb_global_state(2)
    second(PICTURE, epoch=0, index=5)
    again = second(PICTURE, epoch=3, index=5)

    assert torch.equal(again, wanted)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"index": 1}])
def test_each_of_seed_epoch_and_index_changes_the_picture(other):
    key = {"seed": 0, "epoch": 0, "index": 0}

    pictures = []
    for chosen in (key, {**key, **other}):
        transform = train_transform(load_augmentation("hard"), seed=chosen.pop("seed"))
        pictures.append(transform(PICTURE, **chosen))

    assert not torch.equal(*pictures)


def test_global_random_numbers_are_left_alone():
    transform = train_transform(load_augmentation("hard"))
    disturb_global_state(7)
    wanted = (np.random.rand(), random.random(), torch.rand(1).item())

    disturb_global_state(7)
    transform(PICTURE, epoch=0, index=0)

    assert (np.random.rand(), random.random(), torch.rand(1).item()) == wanted


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_worker_count_and_batch_size_change_no_example(rows, workers, batch_size):
    pictures = TrainingPictures(rows, train_transform(load_augmentation("hard")), label_column="label")
    sampler = EpochKeys(len(rows), seed=0)
    sampler.set_epoch(2)
    backwards = {row: pictures[ExampleKey(2, row)]["pixels"] for row in reversed(range(9))}

    disturb_global_state(workers + batch_size)
    loader = DataLoader(pictures, batch_size, sampler=sampler, num_workers=workers)
    batches = list(loader)

    labels = torch.cat([batch["labels"] for batch in batches]).tolist()
    assert labels == [key.row for key in sampler]
    wanted = torch.stack([backwards[row] for row in labels])
    assert torch.equal(torch.cat([batch["pixels"] for batch in batches]), wanted)


def test_normalising_gives_what_the_formula_says():
    gray = np.full((40, 40, 3), 100, dtype=np.uint8)

    transform = train_transform(Augmentation((1.0, 1.0), ()))
    (pixel_values,) = transform.normalise(transform(gray, epoch=0, index=0)[None])

    expected = torch.tensor([(100 / 255 - mean) / std for mean, std in zip(MEAN, STD, strict=True)])
    assert pixel_values.is_contiguous()
    torch.testing.assert_close(pixel_values, expected.view(3, 1, 1).expand(3, 32, 32), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(60, 80), (80, 60), (8, 8), (30, 300), (2, 1)])
def test_a_crop_keeps_the_share_of_the_area_that_was_asked_for(size):
    generator = np.random.default_rng(0)
    pixels = np.zeros((*size, 3), dtype=np.uint8)

    crops = [random_crop(pixels, generator, crop_scale=(0.5, 0.7), image_size=(32, 32)) for _ in range(200)]

    shares = np.array([crop.shape[0] * crop.shape[1] for crop in crops]) / (size[0] * size[1])
    half_a_pixel_a_side = (sum(size) / 2 + 0.25) / (size[0] * size[1])
    assert shares.min() >= 0.5 - half_a_pixel_a_side
    assert shares.max() <= 0.7 + half_a_pixel_a_side
    assert min(min(crop.shape) for crop in crops) >= 1


@pytest.mark.parametrize(("image_size", "aspect"), [((32, 32), 1.0), ((32, 64), 2.0)])
def test_a_crop_is_nearly_of_the_shape_of_the_input(image_size, aspect):
    generator = np.random.default_rng(0)
    pixels = np.zeros((600, 800, 3), dtype=np.uint8)

    crops = [random_crop(pixels, generator, crop_scale=(0.2, 0.4), image_size=image_size) for _ in range(200)]

    stretches = np.array([crop.shape[1] / crop.shape[0] for crop in crops]) / aspect
    assert 0.74 < stretches.min() < 0.8
    assert 1.25 < stretches.max() < 1.34


def test_the_smallest_crop_of_a_reduced_jpeg_is_not_enlarged():
    transform = train_transform(Augmentation((0.25, 1.0), ()), image_size=(224, 224))

    assert transform.shorter_side == 448  # a quarter of the area is half of the side


def test_a_transform_that_turns_an_oblong_picture_is_refused():
    transpose = build_transform("Transpose", {"p": 1.0})
    transform = train_transform(Augmentation((1.0, 1.0), (transpose,)), image_size=(32, 48))

    with pytest.raises(UserError, match=r"made a picture of \(height, width\) \(48, 32\), wanted \(32, 48\)"):
        transform(PICTURE, epoch=0, index=0)


@pytest.mark.parametrize("size", [(8, 8), (40, 60), (300, 200)])
def test_validation_is_the_image_processor_itself(size):
    processor = image_processor()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))

    pixel_values = ValidationTransform(processor)(image)

    assert pixel_values.shape == (3, 32, 32)
    assert torch.equal(pixel_values, processor(image)["pixel_values"][0])
    assert torch.equal(pixel_values, processor.val_transforms(image))


def test_without_augmentation_training_sees_what_validation_sees(rows):
    transform = build_train_transform("none", image_processor(), seed=0)
    training = TrainingPictures(rows, transform, label_column="label")
    validation = ValidationPictures(rows, ValidationTransform(image_processor()), label_column="label")

    for row in range(len(rows)):
        assert torch.equal(training[ExampleKey(4, row)]["pixel_values"], validation[row]["pixel_values"])


def test_the_training_transform_follows_the_image_processor():
    transform = build_train_transform("light", image_processor(), seed=0)

    assert isinstance(transform, TrainTransform)
    assert (transform.image_size, transform.interpolation) == ((32, 32), cv2.INTER_CUBIC)


def test_transforms_reach_a_worker_that_is_started_afresh():
    image = Image.fromarray(PICTURE)
    training, validation = train_transform(load_augmentation("hard")), ValidationTransform(image_processor())

    sent_training, sent_validation = pickle.loads(pickle.dumps((training, validation)))

    key = {"epoch": 1, "index": 2}
    assert torch.equal(sent_training(PICTURE, **key), training(PICTURE, **key))
    assert torch.equal(sent_validation(image), validation(image))


def test_labels_are_a_class_number_or_a_place_for_each_class(rows):
    transform = ValidationTransform(image_processor())

    one = ValidationPictures(rows, transform, label_column="label")[4]
    several = ValidationPictures(rows, transform, label_column="labels")[4]

    assert one["labels"] == 4
    assert several["labels"].dtype == torch.float32
    assert several["labels"].tolist() == [1.0, 0.0, 1.0]
    assert torch.equal(one["pixel_values"], transform(load_rgb(rows[4]["image"])))


def test_an_epoch_shows_each_row_once_in_an_order_of_its_own():
    sampler = EpochKeys(50, seed=3)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        torch.manual_seed(epoch + len(orders))
        orders.append(list(sampler))

    assert len(sampler) == 50
    assert sorted(orders[1]) == [(1, row) for row in range(50)]
    assert orders[0] == orders[2]
    assert [key.row for key in orders[0]] != [key.row for key in orders[1]]
    assert [key.row for key in EpochKeys(50, seed=4)] != [key.row for key in orders[0]]
