"""Trains a few losses for a few steps and writes what each process saw; started by torchrun in a test.

torchrun --nproc_per_node 2 tests/metric_learning_run.py RECIPE OUT.json
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
from accelerate.utils import gather_object
from transformers import set_seed

from hf_tasks.recipe import load_recipe
from hf_tasks.recipe.arguments import build_arguments
from hf_tasks.registry import load_task

SPEED = ("time", "per_second")
LOSSES = ("arcface", "proxy-anchor", "supervised-contrastive")


def train(recipe_path: str, loss: str) -> dict:
    """Figures before training, the loss of each step, and a hash of the loss weights of each process."""
    memory = ", memory: 24" if loss == "supervised-contrastive" else ""
    recipe = load_recipe(Path(recipe_path), [f"loss={{name: {loss}{memory}}}", "training.max_steps=3"])
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
    after = trainer.model.loss.state_dict()
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in after.values())).hexdigest()
    return {
        "figures": {name: value for name, value in figures.items() if not name.endswith(SPEED)},
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "moved": any(not torch.equal(before[name], after[name]) for name in after),
        "digests": gather_object([digest]),
    }


def main() -> None:
    """Train each loss; the first process writes."""
    recipe, out = sys.argv[1:]
    found = {loss: train(recipe, loss) for loss in LOSSES}
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
