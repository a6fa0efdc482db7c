"""Kills short runs with SIGKILL at random moments between first and last step, and resumes each to its end.

    nice python tests/benchmarks/hundred_kills.py [KILLS]

A kill counts when steps were being made, a hundred times in all; one in ten goes to start-up or to the end
instead, which are told apart. Every run must end with the weights of one that nobody killed, and with no file
left aside.
"""

import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent.parent))

from forked_program import Process, run_to_end, start
from pictures import write_class_pictures

KILLS = 100
WEIGHTS = "model/model.safetensors"
STEPS = 12
POLL_SECONDS = 0.005
ELSEWHERE_SHARE = 0.1


def note_training(folder: Path) -> None:
    """In a run that starts: leave a file when its first step begins, and one when its last has ended."""
    from transformers import TrainerCallback
    from transformers.trainer import DEFAULT_CALLBACKS

    class NoteTraining(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            (folder / "begun").touch()

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == STEPS:
                (folder / "ended").touch()

    DEFAULT_CALLBACKS.append(NoteTraining)


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
            "max_steps": STEPS,
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


class Killer:
    """Starts a run again and again, and kills it by dice."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.arguments, self.notes, self.log = arguments, folder / "notes", folder / "log"
        self.dice = random.Random(0)
        self.kills: Counter[str] = Counter()
        self.training_seconds = self.whole_seconds = float("inf")

    def start_and_kill(self, *, spare: bool) -> bool:
        """One start; whether the run has come to its end."""
        shutil.rmtree(self.notes, ignore_errors=True)
        self.notes.mkdir()
        began = time.monotonic()
        process = start(self.arguments, self.log, prepare=partial(note_training, self.notes))
        if not spare and self.dice.random() < ELSEWHERE_SHARE:
            process.join(self.dice.uniform(0, self.whole_seconds))
        elif not spare:
            self._wait_for_steps(process)
            process.join(self.dice.uniform(0, self.training_seconds))
        else:
            self._time(process, began)
        if process.exitcode is None:
            process.kill()
            process.join()
        if process.exitcode == -signal.SIGKILL:
            self.kills[self._phase()] += 1
            return False
        assert process.exitcode == 0, self.log.read_text()[-3000:]
        return True

    def _wait_for_steps(self, process: Process) -> None:
        while process.exitcode is None and not (self.notes / "begun").exists():
            process.join(POLL_SECONDS)

    def _time(self, process: Process, began: float) -> None:
        """By the fastest run so far: the machine may have been busy when the first was timed."""
        self._wait_for_steps(process)
        stepping = time.monotonic()
        while process.exitcode is None and not (self.notes / "ended").exists():
            process.join(POLL_SECONDS)
        self.training_seconds = min(self.training_seconds, time.monotonic() - stepping)
        process.join()
        self.whole_seconds = min(self.whole_seconds, time.monotonic() - began)

    def _phase(self) -> str:
        if (self.notes / "ended").exists():
            return "after the last step"
        return "among steps" if (self.notes / "begun").exists() else "at start-up"


def main() -> None:
    """Kill, resume, compare; a line for each run that has ended."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = ["train", str(write_recipe(folder)), "--resume"]
        reference, run = folder / "reference", folder / "run"
        run_to_end([*arguments, f"output={reference}"], folder / "log")
        killer, runs, killed_before = Killer(arguments, folder), 0, 0
        while killer.kills["among steps"] < wanted or killed_before < killer.kills.total():
            is_first = killer.training_seconds == float("inf")
            spare = is_first or killer.kills["among steps"] >= wanted
            if not killer.start_and_kill(spare=spare):
                continue
            require_whole(run, reference)
            runs += 1
            killed_here, killed_before = killer.kills.total() - killed_before, killer.kills.total()
            print(f"run {runs}: killed {killed_here} times, the same weights", flush=True)
            shutil.rmtree(run)
    told = ", ".join(f"{count} {phase}" for phase, count in sorted(killer.kills.items()))
    print(
        f"{killer.kills.total()} kills ({told}) of {runs} runs, whose steps take "
        f"{killer.training_seconds:.1f} of {killer.whole_seconds:.1f} s: "
        "all resumed, same weights, nothing aside"
    )


if __name__ == "__main__":
    main()
