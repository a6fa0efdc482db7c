"""Augmentation files: the shipped ones, what a file may say, and what is said of its mistakes."""

import re

import albumentations
import numpy as np
import pytest

from hf_tasks.errors import RecipeError
from hf_tasks.images.augmentation import PRESETS, load_augmentation, require_augmentation
from hf_tasks.images.augmentation_transforms import TRANSFORMS, argument_names

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)


@pytest.fixture
def problems_of(tmp_path):
    """Write a file, load it, and return what is said of it without the file's name."""

    def load(text: str) -> list[str]:
        path = tmp_path / "own.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(RecipeError) as caught:
            require_augmentation(str(path))
        return [problem.removeprefix(str(path)) for problem in caught.value.problems]

    return load


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("side", [32, 224])
def test_a_preset_changes_a_picture_and_keeps_its_size_and_type(preset, side):
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    compose = albumentations.Compose(list(load_augmentation(preset).transforms), seed=0)

    changed = [compose(image=picture)["image"] for _ in range(20)]

    assert {(image.shape, image.dtype) for image in changed} == {(picture.shape, picture.dtype)}
    assert sum((image != picture).any() for image in changed) >= 10


def test_presets_cut_more_away_from_light_to_hard():
    smallest = [load_augmentation(preset).crop_scale[0] for preset in PRESETS]

    assert smallest == [0.8, 0.5, 0.25]


def test_light_never_mirrors_a_picture():
    names = [type(transform).__name__ for transform in load_augmentation("light").transforms]

    assert names == ["Affine", "RandomBrightnessContrast"]


def test_none_has_no_transforms():
    augmentation = load_augmentation("none")

    assert augmentation.transforms == ()


def test_own_file_with_nested_groups_builds_what_it_says(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(
        "crop_scale: [0.3, 0.9]\n"
        "transforms:\n"
        "  - HorizontalFlip\n"
        "  - OneOf:\n"
        "      p: 0.25\n"
        "      transforms:\n"
        "        - Affine: {rotate: [-5, 5], border_mode: reflect_101, interpolation: cubic}\n"
        "        - Sequential: {p: 1, transforms: [Blur, {CLAHE: {p: 0.1}}]}\n"
    )

    augmentation = load_augmentation(str(path))

    flip, group = augmentation.transforms
    affine, sequence = group.transforms
    assert augmentation.crop_scale == (0.3, 0.9)
    assert isinstance(flip, albumentations.HorizontalFlip)
    assert isinstance(group, albumentations.OneOf)
    assert group.p == 0.25
    assert (affine.rotate, affine.border_mode, affine.interpolation) == ((-5, 5), 4, 2)
    assert [type(member).__name__ for member in sequence.transforms] == ["Blur", "CLAHE"]


def test_all_mistakes_of_a_file_are_reported_together_with_their_lines(problems_of):
    problems = problems_of(
        "crop_scale: [0.9, 0.2]\n"
        "transforms:\n"
        "  - HorizontalFlp: {p: 0.5}\n"
        "  - Affine: {rotat: 10}\n"
        "  - OneOf:\n"
        "      transforms:\n"
        "        - Blur: {p: 2}\n"
        "  - Perspective: {border_mode: reflekt}\n"
        "crop_scal: 3\n"
    )

    assert problems == [
        ":9: unknown key 'crop_scal'; did you mean 'crop_scale'?",
        ":1: crop_scale: found [0.9, 0.2], wanted [low, high] with 0 < low <= high <= 1",
        ":3: no transform 'HorizontalFlp' in albumentations; did you mean 'HorizontalFlip'?",
        ":4: unknown key 'rotat'; did you mean 'rotate'?",
        ":7: Blur: p: found 2: Input should be less than or equal to 1",
        ":8: Perspective: border_mode: found 'reflekt', wanted constant, replicate, reflect, reflect_101; "
        "did you mean 'reflect'?",
    ]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("Lambda: {image: print}", "Lambda cannot be used: it needs more than a picture"),
        ("Resize: {height: 8, width: 8}", "Resize cannot be used: .* changes its size"),
        ("TextImage: {font_path: /etc/passwd}", "TextImage cannot be used"),
        ("hf_tasks.errors.UserError: {}", "no transform 'hf_tasks.errors.UserError'"),
        ("CropAndPad: {px: 4, keep_size: false}", r"makes uint8 \(105, 105, 3\) of .* \(97, 97, 3\)"),
        ("Blur: {blur_limit: 4}", "Blur: blur_limit: .* kernel sizes must be odd"),
        ("SomeOf: {n: 3, transforms: [Blur, CLAHE]}", "SomeOf: `n` is greater than number of transforms"),
        ("OneOf: {p: often, transforms: [Blur]}", "OneOf: p: found 'often', wanted a number from 0 to 1"),
        ("OneOf: {transforms: []}", "OneOf: its list of transforms is empty"),
        ("OneOf: [Blur]", r"found {'OneOf': \['Blur'\]}, wanted '- OneOf: {transforms: \[...\]}'"),
        ("Blur: 3", r"found {'Blur': 3}, wanted one '- Name: {argument: value}'"),
        ("Blur: {p: 0.1, p: 0.2}", "the key p stands here twice"),
    ],
)
def test_an_entry_that_cannot_be_used_is_refused_with_the_reason(problems_of, entry, problem):
    problems = problems_of(f"transforms:\n  - {entry}\n")

    assert len(problems) == 1
    assert re.search(f"^:2: .*{problem}", problems[0])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "wanted the keys crop_scale and transforms"),
        ("crop_scale: [0.5, 1]", "the key transforms is missing"),
        ("transforms: !!python/name:os.system", "not plain YAML: could not determine a constructor"),
        ("transforms: [&blur Blur, *blur]", r"YAML aliases \(\*blur\) are not taken"),
        ("transforms: [", "not plain YAML: expected the node content"),
        ("transforms: 2024-99-99", "not plain YAML: month must be in 1..12"),
        ("[" * 600, "not plain YAML"),
    ],
    ids=["empty", "no transforms", "tag", "alias", "cut", "date", "deep"],
)
def test_a_file_that_is_no_augmentation_is_refused(problems_of, text, problem):
    problems = problems_of(text)

    assert len(problems) == 1
    assert re.search(problem, problems[0])


def test_an_unknown_name_is_answered_with_the_nearest():
    wanted = "'lihgt' is neither a file nor one of none, light, medium, hard; did you mean 'light'"

    with pytest.raises(RecipeError, match=f"augmentation: {wanted}"):
        require_augmentation("lihgt")


def test_no_transform_that_a_file_may_name_reads_files_or_looks_for_other_pictures():
    suspicious = {"read_fn", "font_path", "reference_images", "metadata_key", "image"}

    for name in TRANSFORMS:
        assert suspicious.isdisjoint(argument_names(name)), name
