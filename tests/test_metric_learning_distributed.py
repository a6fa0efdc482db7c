"""One and two processes: the same losses for the same global batch, same figures, same loss weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import write_class_pictures

PROGRAM = Path(__file__).parent / "metric_learning_run.py"
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


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process and what two processes wrote."""
    folder = tmp_path_factory.mktemp("distributed")
    write_class_pictures(folder / "pictures")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
    written = []
    for processes in (1, 2):
        out = folder / f"{processes}.json"
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *launch, str(PROGRAM), str(folder / "recipe.yaml"), str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "cache")}
        finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert finished.returncode == 0, finished.stderr[-3000:]
        written.append(json.loads(out.read_text(encoding="utf-8")))
    return written


LOSSES = ("arcface", "proxy-anchor", "supervised-contrastive")


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
