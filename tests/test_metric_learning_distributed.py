"""One and two processes: the same losses for the same global batch, same figures, same loss weights."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from accelerate.utils import gather_object
from forked_program import call_in_group
from pictures import write_class_pictures
from transformers import set_seed

from hf_tasks.recipe import load_recipe
from hf_tasks.recipe.arguments import build_arguments
from hf_tasks.registry import load_task

SPEED = ("time", "per_second")
LOSSES = ("arcface", "proxy-anchor", "supervised-contrastive")
RECIPE = """\
task: metric-learning
output: {folder}/run
data:
  train: {{folder: {folder}/pictures}}
  validation: {{folder: {folder}/pictures}}
model: {{name: test_vit, pretrained: false, image_size: 32, embedding_size: 16}}
augmentation: light
sampler: {{classes: 4, pictures: 4}}
training:
  logging_steps: 1
  eval_strategy: "no"
  save_strategy: "no"
  load_best_model_at_end: false
  per_device_eval_batch_size: 8
  dataloader_num_workers: 0
  optim: sgd          # Adam and clipping would hide a gradient of another length
  max_grad_norm: 0
  learning_rate: 1.0e-2
  use_cpu: true
  disable_tqdm: true
"""


def train(recipe_path: Path, loss: str) -> dict:
    """Figures before training, the loss of each step, of each process a hash of its loss weights."""
    memory = ", memory: 24" if loss == "supervised-contrastive" else ""
    recipe = load_recipe(recipe_path, [f"loss={{name: {loss}{memory}}}", "training.max_steps=3"])
    task = load_task(recipe.task)
    arguments = build_arguments(
        recipe, arguments_class=task.arguments_class, defaults=task.training_defaults(recipe.settings)
    )
    weights, splits = task.open_weights(recipe.settings), task.prepare(recipe.settings)
    set_seed(arguments.seed)
    model = task.build_model(recipe.settings, weights, splits)
    # A trainer of its own: one that evaluates before it trains leaves DistributedDataParallel out.
    figures = task.build_trainer(recipe.settings, model, splits, arguments, False).evaluate()
    set_seed(arguments.seed)
    trainer = task.build_trainer(recipe.settings, model, splits, arguments, False)
    before = {name: value.clone() for name, value in trainer.model.loss.state_dict().items()}
    trainer.train()
    saved = Path(recipe.output) / f"{loss}-{trainer.args.process_index}"
    trainer.save_model(str(saved))
    after = trainer.model.loss.state_dict()
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in after.values())).hexdigest()
    return {
        "figures": {name: value for name, value in figures.items() if not name.endswith(SPEED)},
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "moved": any(not torch.equal(before[name], after[name]) for name in after),
        "digests": gather_object([digest]),
        "has_saved": gather_object([saved.exists()]),
    }


def train_each(recipe_path: Path, out: Path) -> None:
    """Train with each loss; the first process writes."""
    found = {loss: train(recipe_path, loss) for loss in LOSSES}
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        out.write_text(json.dumps(found), encoding="utf-8")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process and what two processes wrote."""
    folder = tmp_path_factory.mktemp("distributed")
    write_class_pictures(folder / "pictures")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
    written = []
    for processes in (1, 2):
        out = folder / f"{processes}.json"
        log = folder / f"{processes}.log"
        call_in_group(train_each, folder / "recipe.yaml", out, log=log, processes=processes)
        written.append(json.loads(out.read_text(encoding="utf-8")))
    return written


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_the_same_global_batch_agree(found, loss):
    one, two = (written[loss]["losses"] for written in found)

    assert len(one) == 3
    assert len(set(one)) == 3
    assert two == pytest.approx(one, rel=1e-5, abs=1e-4)  # the Trainer logs 4 places


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_figures_agree_to_the_last_digit(found, loss):
    one, two = (written[loss]["figures"] for written in found)

    assert one == two
    assert 0 < one["eval_map_at_r"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_weights_do_not_drift_between_processes(found, loss):
    digests = found[1][loss]["digests"]

    assert len(digests) == 2
    assert len(set(digests)) == 1
    assert found[1][loss]["moved"]


@pytest.mark.slow
def test_the_first_process_alone_saves(found):
    assert found[1]["arcface"]["has_saved"] == [True, False]
