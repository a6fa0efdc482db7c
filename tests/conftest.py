"""Shared by many tests: the digits on disk, and one run trained on them."""

import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from filelock import FileLock
from forked_program import run_captured
from PIL import Image

from hf_tasks.data.samples import write_digits, write_digits_multilabel
from hf_tasks.export import latency

ROOT = Path(__file__).parent.parent
# Whatever a test does wrong, it does not wait for a network.
os.environ["HF_HUB_OFFLINE"] = "1"
# Nothing of the person who runs the tests is met, and nothing is left with them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf_tasks-tests-")
# Tests run side by side; threads that wait for a core in turn make all of them slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# On a GPU float32 is compared with what float32 gives, not with the ten bits of a TF32 product.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
# How long a file takes is told, not tested.
latency.SECONDS = 0.02


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that at the end no process waits long for another one."""
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)


def pytest_collection_finish():
    """What is imported stays: the collections that every training asks for do not look at it."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


def run_program(*arguments: object, folder: Path, environment: dict[str, str] | None = None):
    """`hf-tasks` as a person runs it: in a folder, in a terminal of 80 columns.

    What libraries read from the environment once, when they are imported, needs an interpreter of its own.
    """
    if environment is None:
        return run_captured([str(argument) for argument in arguments], folder)
    return subprocess.run(
        [sys.executable, "-m", "hf_tasks", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def once(folder: Path, make: Callable[[], object]) -> Path:
    """A folder that the first of the test processes to ask for it makes, and the others share."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            make()
    return folder


def train_shipped(name: str, folder: Path) -> None:
    done = run_program("train", ROOT / f"recipes/image_classification/{name}.yaml", folder=folder)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """A folder in which `data/digits` and `data/digits_multilabel` are, as after `hf-tasks sample`."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "of_digits"
    folder.mkdir(exist_ok=True)
    once(folder / "data/digits", lambda: write_digits(folder / "data/digits"))
    once(
        folder / "data/digits_multilabel", lambda: write_digits_multilabel(folder / "data/digits_multilabel")
    )
    return folder


@pytest.fixture(scope="session")
def digits_run(digits) -> Path:
    """The run folder of the shipped digits recipe, trained by the program; tests leave it as it is."""
    return once(digits / "runs/digits", lambda: train_shipped("digits", digits))


@pytest.fixture(scope="session")
def multilabel_run(digits) -> Path:
    """The run folder of the shipped recipe for several labels; tests leave it as it is."""
    return once(digits / "runs/digits-multilabel", lambda: train_shipped("digits_multilabel", digits))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A real MLflow server."""
    from tracking_server import Server

    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


def write_odd_pictures(folder: Path) -> None:
    """Large JPEG files of odd sizes: one turned by its camera, one gray."""
    from sklearn.datasets import load_sample_images

    china, flower = (Image.fromarray(pixels) for pixels in load_sample_images().images)
    turned = Image.Exif()
    turned[0x0112] = 6
    pictures = {
        "wide.jpg": (china.resize((1601, 533)), {}),
        "high.jpg": (flower.resize((419, 1283)), {}),
        "turned.jpg": (china.resize((1211, 907)), {"exif": turned}),
        "gray.jpg": (flower.convert("L").resize((777, 1001)), {}),
    }
    for name, (picture, options) in pictures.items():
        picture.save(folder / name, quality=90, **options)


@pytest.fixture
def odd_pictures(tmp_path) -> Sequence[Path]:
    """Large JPEG files of odd sizes."""
    folder = tmp_path / "odd"
    folder.mkdir()
    write_odd_pictures(folder)
    return sorted(folder.iterdir())


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache of its own and empty, so that a test never meets what another one left."""
    import datasets
    import huggingface_hub.constants

    home = tmp_path_factory.mktemp("hf_home")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(home))
    return home
