"""ImageClassificationTrainer from Python, without a recipe: pictures, losses, schedules, stopping."""

import io
import math
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
from accelerate import skip_first_batches
from PIL import Image
from torch.nn import functional
from transformers import TrainingArguments

from hf_tasks import ImageClassificationTrainer, UserError
from hf_tasks.callbacks.checkpoints import KeepCheckpoints
from hf_tasks.callbacks.stopping import StopEarly
from hf_tasks.data.order import EpochKeys, ExampleKey
from hf_tasks.images.backbone import open_weights
from hf_tasks.tasks.image_classification.data import ClassificationSplits
from hf_tasks.tasks.image_classification.model import build_classifier
from hf_tasks.tasks.image_classification.settings import Settings
from hf_tasks.tasks.image_classification.task import TASK

ROWS = 22
SIDE = 32
RECIPES = Path(__file__).parents[1] / "recipes/image_classification"


def rows_of(count: int, *, is_multilabel: bool = False) -> datasets.Dataset:
    """Noise with a tint that tells the class, as PNG bytes."""
    generator = np.random.default_rng(count)
    labels = [row % 3 for row in range(count)]
    pictures = []
    for label in labels:
        pixels = generator.integers(0, 150, (20, 28, 3), dtype=np.uint8)
        pixels[..., label] += 80
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="PNG")
        pictures.append({"bytes": file.getvalue(), "path": None})
    columns = {"image": pictures, "path": [str(row) for row in range(count)]}
    if is_multilabel:
        columns["labels"] = [[float(label == c) for c in range(3)] for label in labels]
    else:
        columns["label"] = labels
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image(decode=False))


def build_model(name: str = "test_efficientnet_ln", *, is_multilabel: bool = False):
    torch.manual_seed(0)
    opened = open_weights(name, pretrained=False, image_size=SIDE)
    return build_classifier(opened, class_names=["a", "b", "c"], is_multilabel=is_multilabel)


def arguments(folder, **options) -> TrainingArguments:
    chosen = {
        "per_device_train_batch_size": 8,
        "max_steps": 2,
        "report_to": "none",
        "remove_unused_columns": False,
        "use_cpu": True,
        "disable_tqdm": True,
        **options,
    }
    return TrainingArguments(output_dir=str(folder), **chosen)


def build_trainer(folder, *, augmentation: str = "light", callbacks=(), **options):
    return ImageClassificationTrainer(
        build_model(),
        arguments(folder, **options),
        train_dataset=rows_of(ROWS),
        eval_dataset=rows_of(7),
        augmentation=augmentation,
        callbacks=callbacks,
    )


def results_of(trainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@pytest.mark.parametrize("is_multilabel", [False, True])
def test_it_trains_and_measures_rows_from_python(tmp_path, is_multilabel):
    trainer = ImageClassificationTrainer(
        build_model(is_multilabel=is_multilabel),
        arguments(tmp_path, max_steps=20, learning_rate=3e-3, save_strategy="no"),
        train_dataset=rows_of(ROWS, is_multilabel=is_multilabel),
        eval_dataset=rows_of(7, is_multilabel=is_multilabel),
    )

    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()

    assert after["eval_loss"] < before / 2
    assert after["eval_average_precision" if is_multilabel else "eval_accuracy"] == 1.0


def test_the_sampler_gives_every_row_once_in_an_order_of_seed_and_epoch():
    sampler = EpochKeys(ROWS, seed=3)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    other_seed = list(EpochKeys(ROWS, seed=4))

    assert first == again
    assert sorted(first) == [ExampleKey(0, row) for row in range(ROWS)]
    assert sorted(second) == [ExampleKey(1, row) for row in range(ROWS)]
    orders = {tuple(key.row for key in keys) for keys in (first, second, other_seed)}
    assert len(orders) == 3


def pictures_of(loader) -> torch.Tensor:
    return torch.cat([batch["pixels"] for batch in loader])


@pytest.mark.parametrize("augmentation", ["medium", "hard"])
def test_a_training_picture_depends_on_seed_epoch_and_row_alone(tmp_path, augmentation):
    epoch = 2
    trainer = build_trainer(tmp_path, augmentation=augmentation)
    keys = trainer._get_train_sampler()
    keys.set_epoch(epoch)
    one_by_one = torch.stack([trainer.train_dataset[key]["pixels"] for key in keys])

    for batch_size, workers in ((8, 0), (5, 0), (5, 2)):
        other = build_trainer(
            tmp_path,
            augmentation=augmentation,
            per_device_train_batch_size=batch_size,
            dataloader_num_workers=workers,
        )
        torch.manual_seed(batch_size)  # nothing is drawn from the global generators
        np.random.seed(workers)
        loader = other.get_train_dataloader()
        loader.set_epoch(epoch)

        assert torch.equal(pictures_of(loader), one_by_one)
        loader.set_epoch(epoch)  # iterating has moved it on
        assert torch.equal(pictures_of(skip_first_batches(loader, 2)), one_by_one[2 * batch_size :])


def test_a_training_picture_differs_by_seed_and_by_epoch(tmp_path):
    trainer, other_seed = build_trainer(tmp_path), build_trainer(tmp_path, seed=1)

    pictures = [
        trainer.train_dataset[ExampleKey(0, 5)],
        trainer.train_dataset[ExampleKey(1, 5)],
        other_seed.train_dataset[ExampleKey(0, 5)],
    ]

    first, second, third = (picture["pixels"] for picture in pictures)
    assert not torch.equal(first, second)
    assert not torch.equal(first, third)


def test_a_batch_to_train_on_is_no_input_until_a_step_prepares_it(tmp_path):
    trainer = build_trainer(tmp_path, augmentation="light")
    batch = next(iter(trainer.get_train_dataloader()))
    config = trainer.model.config.pretrained_cfg
    std_C11, mean_C11 = (torch.tensor(config[name]).view(3, 1, 1) for name in ("std", "mean"))

    prepared = trainer._prepare_inputs(batch)

    assert batch["pixels"].dtype == torch.uint8
    with pytest.raises(TypeError, match="pixel_values"):
        trainer.model(pixels=batch["pixels"])
    assert prepared.keys() == {"pixel_values", "labels"}
    wanted = (batch["pixels"] / 255 - mean_C11) / std_C11
    torch.testing.assert_close(prepared["pixel_values"], wanted, atol=1e-5, rtol=0)


def test_accumulated_batches_train_as_one_batch(tmp_path):
    """22 rows: the last step of an epoch has 6 rows, in parts of 4 and 2."""
    weights = []
    for batch_size, parts in ((8, 1), (4, 2)):
        trainer = build_trainer(
            tmp_path / str(parts),
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=parts,
            max_steps=4,
            save_strategy="no",
        )
        trainer.train()
        weights.append(torch.cat([tensor.flatten() for tensor in trainer.model.parameters()]).detach())

    torch.testing.assert_close(weights[1], weights[0], atol=1e-4, rtol=0)


LOSSES = {
    "label_smoothing": (
        {"name": "cross-entropy", "label_smoothing": 0.2},
        lambda logits, labels: functional.cross_entropy(logits, labels, label_smoothing=0.2),
    ),
    "class_weights": (
        {"name": "cross-entropy", "class_weights": {"b": 3.0}},
        lambda logits, labels: (
            functional.cross_entropy(logits, labels, reduction="none") * torch.tensor([1.0, 3.0, 1.0])[labels]
        ).mean(),
    ),
    "positive_weights": (
        {"name": "binary-cross-entropy", "positive_weights": {"c": 5.0}},
        lambda logits, labels: functional.binary_cross_entropy_with_logits(
            logits, labels, pos_weight=torch.tensor([1.0, 1.0, 5.0])
        ),
    ),
}


@pytest.mark.parametrize("option", LOSSES)
def test_the_options_of_the_loss_reach_the_trainer(tmp_path, option):
    loss, by_pytorch = LOSSES[option]
    is_multilabel = loss["name"] != "cross-entropy"
    columns = {"labels": ["a", "b", "c"]} if is_multilabel else {}
    settings = Settings(
        data={"train": {"folder": "unused"}, "columns": columns},
        model={"name": "unused"},
        loss=loss,
        augmentation="none",
    )
    rows = rows_of(6, is_multilabel=is_multilabel)
    splits = ClassificationSplits(rows, rows, ("a", "b", "c"), is_multilabel, {})
    model = build_model(is_multilabel=is_multilabel).eval()

    trainer = TASK.build_trainer(settings, model, splits, arguments(tmp_path), False)
    (batch,) = trainer.get_train_dataloader()

    with torch.no_grad():
        found = trainer.compute_loss(model, dict(batch))
        expected = by_pytorch(model(batch["pixel_values"]).logits, batch["labels"])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_the_delayed_cosine_is_held_and_falls_to_its_minimum(tmp_path):
    """Of the shipped recipe, over 3,000 steps: 100 up, 900 held, 2,000 down along half a cosine to 1 %."""
    recipe = yaml.safe_load((RECIPES / "delayed_cosine.yaml").read_text())["training"]
    names = ("learning_rate", "warmup_steps", "lr_scheduler_type", "lr_scheduler_kwargs")
    trainer = build_trainer(tmp_path, **{name: recipe[name] for name in names})

    trainer.create_optimizer_and_scheduler(num_training_steps=3000)
    found = []
    for _ in range(3000):
        found.append(trainer.lr_scheduler.get_last_lr()[0])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()

    top, low = 1e-3, 1e-5
    rise = [low + (top - low) * step / 100 for step in range(100)]
    fall = [low + (top - low) * (1 + math.cos(math.pi * step / 2000)) / 2 for step in range(2000)]
    np.testing.assert_allclose(found, rise + [top] * 900 + fall, atol=1e-12, rtol=0)


def test_training_stops_early_and_keeps_the_best(tmp_path):
    """Without learning all results are equal: the first is the best, two more are waited for."""
    trainer = build_trainer(
        tmp_path,
        callbacks=[KeepCheckpoints(1), StopEarly(early_stopping_patience=2)],
        learning_rate=0.0,
        weight_decay=0.0,
        max_steps=20,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
    )

    trainer.train()

    assert trainer.state.global_step == 3
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-3"]


def test_the_best_weights_are_those_that_are_left(tmp_path):
    trainer = build_trainer(
        tmp_path,
        callbacks=[KeepCheckpoints(1)],
        learning_rate=0.05,  # too high: the loss goes up and down
        max_steps=6,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
    )

    trainer.train()
    losses = results_of(trainer, "eval_loss")

    saved = {step: losses[step - 1] for step in (2, 4, 6)}
    best = min(saved, key=saved.get)
    assert trainer.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{best}")
    assert trainer.evaluate()["eval_loss"] == pytest.approx(saved[best], abs=1e-6)


def test_outputs_that_are_not_finite_are_one_clear_error(tmp_path):
    trainer = build_trainer(tmp_path, learning_rate=1e30, eval_strategy="steps", eval_steps=2)

    with pytest.raises(UserError, match=r"not finite after step 2; lower training\.learning_rate"):
        trainer.train()
