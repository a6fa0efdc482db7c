"""The configurations of `accelerate launch`: read by accelerate, and run; a process that dies."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from conftest import ROOT
from pictures import write_class_pictures

CONFIGS = sorted((ROOT / "recipes/accelerate").iterdir())
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_a_configuration_whose_command_stands_in_it_and_in_the_readme(path):
    command = path.read_text(encoding="utf-8").splitlines()[1].removeprefix("# ")

    config = load_config_from_file(str(path))
    words = launch_command_parser().parse_args(command.split()[2:])

    assert isinstance(config, ClusterConfig)
    assert config.num_processes >= config.num_machines
    assert words.config_file == str(path.relative_to(ROOT))
    assert (words.module, words.training_script, words.training_script_args[:2]) == (
        True, "hf_tasks", ["train", "RECIPE"],
    )  # fmt: skip
    assert f"`{command}`" in README


def test_the_readme_names_no_configuration_that_is_not_there():
    named = set(re.findall(r"recipes/accelerate/(\w+\.yaml)", README))

    assert named == {path.name for path in CONFIGS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("launched")
    write_class_pictures(folder / "pictures")
    recipe = {
        "task": "image-classification",
        "output": "runs/launched",
        "data": {"train": {"folder": "pictures"}},
        "model": {"name": "test_efficientnet", "pretrained": False, "image_size": 32},
        "training": {
            "max_steps": 2,
            "per_device_train_batch_size": 4,
            "eval_strategy": "no",
            "save_strategy": "steps",
            "save_steps": 2,
        },
    }
    recipe["training"]["load_best_model_at_end"] = False
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def launch_command(name: str, *overrides: str) -> list[str]:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
    config = ["--config_file", str(ROOT / f"recipes/accelerate/{name}.yaml")]
    return [*launcher, *config, "-m", "hf_tasks", "train", "recipe.yaml", f"output=runs/{name}", *overrides]


def processes_of(run: Path) -> int:
    return json.loads((run / "environment.json").read_text())["processes"]


@pytest.mark.slow
def test_the_configuration_for_a_processor_trains(folder):
    command = launch_command("cpu")

    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert processes_of(folder / "runs/cpu") == 1


@pytest.mark.slow
def test_many_gpus_are_two_processes_here_of_which_one_that_is_killed_stops_the_other_within_a_minute(folder):
    command = launch_command("many_gpus", "training.max_steps=100000")
    run = folder / "runs/many_gpus"
    log = folder / "dies.log"
    with log.open("wb") as file:
        group = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=file, stderr=file)
    try:
        while not (run / "checkpoints/checkpoint-2").exists():
            assert group.poll() is None, log.read_text()
            time.sleep(0.2)
        ranks = {
            child.environ().get("RANK"): child
            for child in psutil.Process(group.pid).children()
            if child.environ().get("RANK")
        }
        ranks["1"].send_signal(signal.SIGKILL)
        killed = time.monotonic()

        code = group.wait(timeout=60)

        assert processes_of(run) == 2
        assert code != 0
        assert time.monotonic() - killed < 60
        assert not ranks["0"].is_running()
        assert "SIGKILL" in log.read_text() or "-9" in log.read_text()
    finally:
        group.kill()
