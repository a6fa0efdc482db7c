"""The README does what it says: recipe, commands and Python are run, the table of keys is whole."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from conftest import ROOT, run_program
from huggingface_hub.constants import HF_HUB_CACHE
from PIL import Image
from safetensors.torch import save_file

from hf_tasks.recipe import recipe_schema
from hf_tasks.registry import TASKS, task_settings

README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMED, SMALLER = "{name: resnet18.a1_in1k, image_size: 224}", "{name: test_resnet.r160_in1k, image_size: 64}"
REPOSITORY, COMMIT = "timm/test_resnet.r160_in1k", "0" * 40


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def section(title: str) -> str:
    return README.split(f"## {title}\n")[1].split("\n## ")[0]


def write_flowers(folder: Path) -> None:
    """Pictures and tables as the README supposes them, and its recipe."""
    # A small network of small pictures says the same in a quarter of the time.
    recipe = blocks("yaml")[0].replace(NAMED, SMALLER)
    assert SMALLER in recipe
    (folder / "flowers.yaml").write_text(recipe, encoding="utf-8")
    colours = {"daisy": (230, 220, 90), "rose": (200, 30, 60)}
    # So many, that three epochs from random weights end in decisions that 8 bits do not turn.
    for split, count in {"train": 200, "test": 3}.items():
        lines = ["image_path,label"]
        for name, colour in colours.items():
            for number in range(count):
                path = f"{split}_{name}_{number}.jpg"
                (folder / "pictures").mkdir(exist_ok=True)
                Image.new("RGB", (90 + number, 70), colour).save(folder / "pictures" / path)
                lines.append(f"{path},{name}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copytree(folder / "pictures", folder / "new_pictures")
    shutil.copy(folder / "pictures/train_daisy_0.jpg", folder / "pictures/daisy.jpg")


@pytest.fixture(scope="module", autouse=True)
def model_of_the_readme():
    """The cache of the Hub holds the model, with random weights."""
    repository = Path(HF_HUB_CACHE) / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model("test_resnet").state_dict(), snapshot / "model.safetensors")
    yield
    shutil.rmtree(repository)


@pytest.mark.slow
def test_the_commands_run_as_they_stand(tmp_path):
    write_flowers(tmp_path)
    block = next(block for block in blocks("sh") if "hf-tasks check" in block)

    for line in block.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        done = run_program(*arguments, folder=tmp_path)
        assert (program, done.returncode) == ("hf-tasks", 0), f"{line}\n{done.stderr}"

    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 1 + 406
    assert (tmp_path / "runs/flowers/evaluation/metrics.json").is_file()


@pytest.mark.slow
def test_the_python_runs_as_it_stands(tmp_path):
    write_flowers(tmp_path)

    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks("python"))],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert re.search(r"'label': '(daisy|rose)'", done.stdout)


def test_every_task_stands_in_the_table_of_tasks():
    here = re.findall(r"^\| `([a-z-]+)` \|.*\| here \|$", section("Tasks"), flags=re.MULTILINE)

    assert sorted(here) == sorted(TASKS)


def test_every_key_of_a_recipe_stands_in_the_table_of_keys():
    rows = re.findall(r"^\| (`.*?) \|", section("The recipe"), flags=re.MULTILINE)
    named = {key.split(".")[0] for row in rows for key in re.findall(r"`([a-z_.]+)`", row)}

    assert named == set(recipe_schema("image-classification")["properties"])


@pytest.mark.parametrize("task", ["siamese", "language-model"])
def test_every_key_of_a_task_of_texts_stands_in_its_table(task):
    table = re.search(rf"^\| key of `{task}` (.*?)\n\n", section("Texts"), flags=re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`.*?) \|", table[1], flags=re.MULTILINE)

    named = {key.split(".")[0] for row in rows for key in re.findall(r"`([a-z_.]+)`", row)}

    assert named == set(task_settings(task).model_fields)


def test_the_run_folder_is_drawn_as_it_is(digits_run):
    drawn = re.findall(r"^  ([a-zA-Z_.]+)/? ", section("What a run leaves"), flags=re.MULTILINE)

    assert sorted(drawn) == sorted(path.name for path in digits_run.iterdir())


def test_both_make_targets_exist():
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("sh")), flags=re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)
