"""ONNX against eager PyTorch, and static int8 against fp32, on real digits enlarged to 96 pixels.

python tests/benchmarks/export_speed.py     # trains a small convolutional network, about two minutes
Both ratios come from one run; batches alternate between the candidates, so that a busy machine slows all.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from hf_tasks import workflow
from hf_tasks.data.samples import SAMPLES
from hf_tasks.export.compare import choose_rows
from hf_tasks.export.files import write_files
from hf_tasks.export.network import TorchNetwork
from hf_tasks.export.networks import open_network
from hf_tasks.export.prove import prove_files
from hf_tasks.recipe import load_recipe
from hf_tasks.registry import load_task

BATCH = 8
ROUNDS = 25
RECIPE = """
task: image-classification
output: {folder}/run
data:
  train: {{table: {folder}/digits/train_metadata.csv}}
  validation: {{table: {folder}/digits/test_metadata.csv}}
model: {{name: resnet10t, pretrained: false, image_size: 96}}
training: {{num_train_epochs: 1, learning_rate: 2.0e-3}}
"""


def trained_plan(folder):
    SAMPLES["digits"](folder / "digits")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(folder=folder))
    recipe = load_recipe(path)
    run = workflow.run(recipe, console=Console()).folder
    task = load_task(recipe.task)
    return task.plan_export(recipe.settings, task.load_model(run / "model"), task.prepare(recipe.settings))


def median_seconds(networks, inputs):
    taken = {name: [] for name in networks}
    for _ in range(ROUNDS):
        for name, network in networks.items():
            start = time.perf_counter()
            network(inputs)
            taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(values[3:])) for name, values in taken.items()}


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = trained_plan(folder)
        files = [
            file for f in ("onnx", "onnx-int8") for file in write_files(plan, f, folder / "e", metadata={})
        ]
        records = prove_files(plan, files, choose_rows(plan.rows, sample=None), asked={})
        plain = [file for file in files if not file.is_end_to_end]
        networks = {"eager": TorchNetwork(plan)} | {file.format: open_network(file.path) for file in plain}
        inputs = next(plan.batches(range(BATCH), BATCH))
        seconds = median_seconds(networks, inputs)
    loss = next(record.metric.loss for record in records if record.format == "onnx-int8")
    print(f"threads {torch.get_num_threads()}, batch {BATCH}")
    for name, value in seconds.items():
        print(f"{name:10} {1000 * value:7.1f} ms a batch")
    print(
        f"onnx fp32 is {seconds['eager'] / seconds['onnx']:.2f} times as fast as eager PyTorch (wanted >= 1)"
    )
    print(f"int8 is {seconds['onnx'] / seconds['onnx-int8']:.2f} times as fast as fp32 (wanted >= 1.5)")
    print(f"int8 loses {100 * loss:.2f} points of accuracy (allowed 1)")


if __name__ == "__main__":
    main()
