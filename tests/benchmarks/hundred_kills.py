"""Kills short runs with SIGKILL at random moments, a hundred times in all, and resumes each to its end.

    nice python tests/benchmarks/hundred_kills.py [KILLS]

Every run must end with the weights of one that nobody killed, and with no file left aside.
"""

import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent.parent))

from forked_program import run_to_end, start
from pictures import write_class_pictures

KILLS = 100
WEIGHTS = "model/model.safetensors"


def write_recipe(folder: Path) -> Path:
    """Pictures and a recipe with all that draws random numbers, and a checkpoint every other step."""
    write_class_pictures(folder / "pictures")
    recipe = {
        "task": "image-classification",
        "output": str(folder / "run"),
        "data": {"train": {"folder": str(folder / "pictures")}},
        "model": {"name": "test_efficientnet", "pretrained": False, "image_size": 32, "drop_rate": 0.2},
        "augmentation": "medium",
        "training": {
            "max_steps": 12,
            "per_device_train_batch_size": 8,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "save_strategy": "steps",
            "save_steps": 2,
            "logging_steps": 1,
            "dataloader_num_workers": 0,
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def require_whole(run: Path, reference: Path) -> None:
    """The same weights and predictions, and nothing left aside."""
    for name in (WEIGHTS, "predictions.csv"):
        assert (run / name).read_bytes() == (reference / name).read_bytes(), f"{name} differs"
    aside = [path for path in run.rglob(".*") if path.is_file()]
    aside += list(run.parent.glob(f".{run.name}.*"))
    assert not aside, f"left aside: {aside}"


def main() -> None:
    """Kill, resume, compare; a line for each run that has ended."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    dice = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = ["train", str(write_recipe(folder)), "--resume"]
        reference, run, log = folder / "reference", folder / "run", folder / "log"
        run_to_end([*arguments, f"output={reference}"], log)
        began = time.monotonic()
        run_to_end(arguments, log)
        seconds = time.monotonic() - began
        require_whole(run, reference)
        shutil.rmtree(run)
        kills = runs = killed_here = 0
        durations = [seconds]
        while kills < wanted or killed_here:
            began = time.monotonic()
            process = start(arguments, log)
            # By the fastest run so far: the machine may have been busy when the first was timed.
            process.join(dice.uniform(0, min(durations)) if kills < wanted else None)
            if process.exitcode is None:
                process.kill()
                process.join()
            if process.exitcode == -signal.SIGKILL:
                kills, killed_here = kills + 1, killed_here + 1
                continue
            assert process.exitcode == 0, log.read_text()[-3000:]
            require_whole(run, reference)
            runs += 1
            durations += [time.monotonic() - began] if killed_here == 0 else []
            print(f"run {runs}: killed {killed_here} times ({kills} in all), the same weights", flush=True)
            killed_here = 0
            shutil.rmtree(run)
    print(f"{kills} kills of {runs} runs of {min(durations):.1f} s: all resumed, same weights, nothing aside")


if __name__ == "__main__":
    main()
