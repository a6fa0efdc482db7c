"""A loss that is not finite stops the run, and names the step and the files of the batch."""

import re

import pytest
import torch
from pictures import write_class_pictures
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from hf_tasks.callbacks.finite import RequireFiniteLoss
from hf_tasks.errors import UserError
from hf_tasks.recipe import load_recipe
from hf_tasks.workflow import run


class Numbers(Dataset):
    """Row n is the number n; that of one row is not finite."""

    def __init__(self, bad_row: int | None, value: float = float("nan")) -> None:
        self.values = torch.arange(22.0)
        if bad_row is not None:
            self.values[bad_row] = value

    def __len__(self):
        return 22

    def __getitem__(self, row):
        return {"x": self.values[row]}


class Mean(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return {"loss": (self.weight * x).mean()}


def trainer_on(folder, numbers: Numbers, **fields) -> Trainer:
    arguments = TrainingArguments(
        folder,
        use_cpu=True,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        **{"num_train_epochs": 3, "logging_steps": 5, "save_strategy": "no", **fields},
    )
    trainer = Trainer(Mean(), arguments, train_dataset=numbers)
    trainer.add_callback(RequireFiniteLoss(trainer, [f"{row}.png" for row in range(22)]))
    return trainer


def batches_in_order(folder) -> list[list[int]]:
    """The rows of each batch of the first epoch, as the model sees them."""
    seen = []
    trainer = trainer_on(folder, Numbers(None), num_train_epochs=1)
    trainer.model.register_forward_pre_hook(
        lambda module, arguments, inputs: seen.append(inputs["x"].int().tolist()), with_kwargs=True
    )
    trainer.train()
    return seen


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("parts", [1, 2])
def test_the_step_and_the_files_of_the_batch_are_named(tmp_path, value, parts):
    batches = batches_in_order(tmp_path)
    bad_batch = 3
    trainer = trainer_on(
        tmp_path, Numbers(batches[bad_batch][1], value), gradient_accumulation_steps=parts, logging_steps=2
    )

    with pytest.raises(UserError, match=r"loss is (nan|inf) at step .*learning rate 0.001") as caught:
        trainer.train()

    assert f"at step {bad_batch // parts + 1}," in str(caught.value)
    assert re.findall(r"(\d+)\.png", str(caught.value)) == [str(row) for row in batches[bad_batch]]


def test_a_finite_loss_trains_to_the_end(tmp_path):
    trainer = trainer_on(tmp_path, Numbers(None))

    trainer.train()

    assert trainer.state.global_step == 18


@pytest.mark.slow
def test_a_recipe_with_an_absurd_learning_rate_stops_before_its_first_checkpoint(tmp_path):
    write_class_pictures(tmp_path / "pictures")
    (tmp_path / "recipe.yaml").write_text(
        "task: image-classification\n"
        f"output: {tmp_path}/run\n"
        f"data: {{train: {{folder: {tmp_path}/pictures}}}}\n"
        "model: {name: test_vit, pretrained: false, image_size: 32}\n"
        "training: {per_device_train_batch_size: 4, learning_rate: 1.0e+38, max_grad_norm: 0}\n"
    )

    with pytest.raises(UserError, match=r"loss is nan at step [1-9], .*its batch: class\d/\d.png, "):
        run(load_recipe(tmp_path / "recipe.yaml"))

    assert not list((tmp_path / "run/checkpoints").glob("checkpoint-*"))
