"""Training from the cache is the training it would have been, for both tasks of pictures."""

from functools import partial
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
import yaml
from forked_program import run_captured, run_to_end
from pictures import write_class_pictures

pytestmark = pytest.mark.slow

OWN_SECTIONS = {
    "image-classification": {"data": {"train": {"folder": "pictures"}, "validation": 0.3}},
    "metric-learning": {
        "data": {"train": {"folder": "pictures"}, "validation": {"folder": "pictures"}},
        "sampler": {"classes": 4, "pictures": 2},
    },
}


@pytest.fixture
def folder(tmp_path):
    """Pictures of six classes and a recipe for each task."""
    write_class_pictures(tmp_path / "pictures")
    for task, sections in OWN_SECTIONS.items():
        batch = {} if "sampler" in sections else {"per_device_train_batch_size": 8}
        recipe = {
            "task": task,
            "output": "runs",
            "model": {"name": "test_efficientnet", "pretrained": False, "image_size": 32},
            "augmentation": "medium",
            "training": {"max_steps": 6, "eval_strategy": "no", "save_strategy": "no", **batch},
            **sections,
        }
        recipe["training"]["load_best_model_at_end"] = False
        (tmp_path / f"{task}.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


def cache_below(folder: Path) -> None:
    datasets.config.HF_DATASETS_CACHE = folder / "cache"


def pack_keys(pack: Path) -> list[bytes]:
    packed = pa.ipc.open_file(str(pack)).schema.metadata[b"keys"]
    return [packed[start : start + 32] for start in range(0, len(packed), 32)]


def run_here(folder: Path, *arguments: str) -> str:
    """Run with a cache of its own, which the environment sets only before `datasets` is imported."""
    log = folder / f"{arguments[0]}.log"
    return run_to_end(list(arguments), log, prepare=partial(cache_below, folder))


@pytest.mark.parametrize("task", OWN_SECTIONS)
def test_prepared_and_trained_from_the_cache_has_the_same_weights_and_figures(folder, task, monkeypatch):
    monkeypatch.chdir(folder)
    run_here(folder, "train", f"{task}.yaml", "output=plain")

    prepared = run_here(folder, "prepare", f"{task}.yaml")
    run_here(folder, "train", f"{task}.yaml", "output=cached", "cache=true")

    assert "train: " in prepared
    for name in ("model/model.safetensors", "predictions.csv"):
        assert (folder / "cached" / name).read_bytes() == (folder / "plain" / name).read_bytes()


def test_a_task_without_pictures_has_nothing_to_prepare(folder):
    recipe = "task: language-model\noutput: runs\ndata: {train: {text: a.txt}}\nmodel: {name: gpt2}\n"
    (folder / "text.yaml").write_text(recipe)

    done = run_captured(["prepare", "text.yaml"], folder)

    assert done.returncode == 2
    assert "language-model has no pictures" in done.stderr


def test_a_run_fills_the_cache_itself_and_a_run_with_another_split_draws_from_it(folder, monkeypatch):
    monkeypatch.chdir(folder)
    recipe = "image-classification.yaml"
    run_here(folder, "train", recipe, "cache=true", "output=first")
    before = run_here(folder, "prepare", recipe)

    run_here(folder, "prepare", recipe, "data.split_seed=1")

    assert ", 0 of them decoded now" in before
    packs = sorted((folder / "cache").rglob("pictures/*/*.arrow"))
    for way in {pack.parent for pack in packs}:
        keys = [key for pack in way.glob("*.arrow") for key in pack_keys(pack)]
        assert len(keys) == len(set(keys)) <= 42
    assert len({pack.parent for pack in packs}) == 2  # of training, and of validation
