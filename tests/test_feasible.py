"""What cannot be trained is said before the first step, each as a message that names the key."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_program
from PIL import Image

from hf_tasks.images.backbone import open_weights
from hf_tasks.images.batches import learns_from_one
from hf_tasks.tasks.image_classification.model import build_classifier

RECIPE = """\
task: image-classification
output: run
data:
  train: {table: rows.csv}
  validation: {table: others.csv}
model: {name: test_resnet.r160_in1k, pretrained: false, image_size: 32}
training: {num_train_epochs: 1, per_device_train_batch_size: 8}
"""


@pytest.fixture
def nine_rows(tmp_path) -> Path:
    """A folder with nine pictures of two classes to train on, nine others, and a recipe for them."""
    pixels = np.random.default_rng(0).integers(0, 256, (18, 8, 8, 3), np.uint8)
    for name, numbers in (("rows", range(9)), ("others", range(9, 18))):
        for number in numbers:
            Image.fromarray(pixels[number]).save(tmp_path / f"{number}.png")
        lines = [f"{number}.png,{'ab'[number % 2]}" for number in numbers]
        (tmp_path / f"{name}.csv").write_text("\n".join(["image_path,label", *lines]))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=1", "9 pictures in batches of 8 leave one alone, and batch norm cannot learn"),
        ("per_device_train_batch_size=1", "in batches of 1 leave one alone"),
        ("dataloader_drop_last=true", None),
        ("max_steps=1", None),
    ],
)
def test_a_lone_picture_is_refused_where_batch_norm_cannot_learn_from_it(nine_rows, override, message):
    done = run_program("train", "recipe.yaml", f"training.{override}", folder=nine_rows)

    assert done.returncode == (0 if message is None else 2), done.stderr
    assert (message or "") in done.stderr
    assert "Traceback" not in done.stderr
    assert (nine_rows / "run/metrics.json").exists() == (message is None)


def test_dataloader_drop_last_leaves_no_row_out_of_the_figures(nine_rows):
    done = run_program(
        "train", "recipe.yaml", "training.dataloader_drop_last=true", "training.per_device_eval_batch_size=8",
        folder=nine_rows,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    with (nine_rows / "run/predictions.csv").open() as file:
        assert len(file.readlines()) == 1 + 9


def test_the_trial_of_a_check_does_without_a_lone_picture_but_has_rows_that_are_only_warned_of(nine_rows):
    done = run_program("check", "recipe.yaml", "data.validation={table: rows.csv}", folder=nine_rows)

    assert "the same pictures to" in done.stdout
    assert "trial: trained, measured, saved, loaded" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("side", "expected"),
    [(32, False), (64, True)],  # strides of 32 in all: one place, or 2 x 2
)
def test_whether_a_network_learns_from_one_picture_is_tried_and_changes_nothing(side, expected):
    opened = open_weights("test_resnet.r160_in1k", pretrained=False, image_size=side)
    model = build_classifier(opened, class_names=["a", "b"], is_multilabel=False).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chance = torch.get_rng_state()

    found = learns_from_one(model, (3, side, side))

    assert found is expected
    assert not model.training
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["metric_for_best_model=acuracy"], "wanted one of loss, accuracy, f1_macro"),
        (["metric_for_best_model=acuracy"], "did you mean 'accuracy'?"),
        (["dataloader_drop_last=true", "per_device_train_batch_size=64"], "no batch of 9 training examples"),
        (["optim=galore_adamw", "optim_args=nonsense"], "recipe.yaml: training.optim: "),
        (["fp16=true", "use_cpu=true"], "recipe.yaml: training.fp16: has no effect on the CPU"),
        (["report_to=wandb"], "training.report_to: found 'wandb', which is not installed: pip install it"),
        (["report_to=wandbb"], "training.report_to: found 'wandbb', which is not known"),
    ],
)
def test_arguments_that_cannot_work_are_told_before_the_first_step(nine_rows, overrides, message):
    named = [f"training.{override}" for override in overrides]

    done = run_program("train", "recipe.yaml", *named, folder=nine_rows)

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (nine_rows / "run/recipe.yaml").exists()
