"""Searches with real small runs: shared, gone on with, killed, failing, giving up."""

import os
import re
import signal
import sqlite3
from functools import partial
from pathlib import Path

import pytest
import yaml
from conftest import run_program
from forked_program import end_code, kill_at_step, run_to_end, signal_at_step, start
from pictures import write_class_pictures

from hf_tasks.recipe import load_recipe

SEARCH = {
    "training.learning_rate": {"low": 1.0e-4, "high": 1.0e-2, "log": True},
    "augmentation": {"choices": ["none", "light"]},
}

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Pictures of six classes and a recipe with a search, in the working directory."""
    write_class_pictures(tmp_path / "pictures")
    write_recipe(tmp_path, {"search": SEARCH})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_recipe(folder: Path, tune: dict, **training) -> None:
    recipe = {
        "task": "image-classification",
        "output": "study",
        "data": {"train": {"folder": "pictures"}, "validation": 0.3},
        "model": {"name": "test_efficientnet", "pretrained": False, "image_size": 32},
        "training": {
            "max_steps": 2,
            "eval_strategy": "steps",
            "save_strategy": "steps",
            "eval_steps": 1,
            "save_steps": 1,
            "dataloader_num_workers": 0,
            **training,
        },
        "export": ["torchscript"],
        "tune": tune,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))


def states(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "study/tune.db") as database:
        return [row[0] for row in database.execute("select state from trials order by number")]


def tune(folder: Path, trials: int, log: str = "tune.log") -> str:
    return run_to_end(["tune", "recipe.yaml", "--trials", str(trials)], folder / log)


def test_a_study_goes_on_and_its_best_recipe_trains_to_the_same_figures(folder):
    first = tune(folder, 1, log="first.log")
    second = tune(folder, 2, log="second.log")
    third = tune(folder, 2, log="third.log")

    assert states(folder) == ["COMPLETE", "COMPLETE"]
    assert "trial 0: " in first
    assert "trial 1: " in second
    assert "trial 0: " not in second
    assert not re.search(r"trial \d: ", third)
    assert max(map(len, third.splitlines())) <= 80
    best = folder / "study/best.yaml"
    number = re.search(r"trial (\d+)", best.read_text().splitlines()[0])[1]
    assert load_recipe(best).export is not None
    run_to_end(["train", str(best), "export=[]"], folder / "best.log")
    trial = folder / f"study/trials/{int(number):03d}"
    for name in ("model/model.safetensors", "predictions.csv"):
        assert (folder / "study/best" / name).read_bytes() == (trial / name).read_bytes()


def test_two_processes_share_the_number_of_trials(folder):
    command = ["tune", "recipe.yaml", "--trials", "3"]
    both = [start(command, folder / f"{number}.log") for number in range(2)]

    codes = [end_code(process) for process in both]

    logs = [(folder / f"{number}.log").read_text() for number in range(2)]
    assert codes == [0, 0], logs
    assert states(folder) == ["COMPLETE"] * 3
    ran = [set(re.findall(r"^trial (\d): ", log, flags=re.MULTILINE)) for log in logs]
    assert ran[0] | ran[1] == {"0", "1", "2"}
    assert not ran[0] & ran[1]
    assert (folder / "study/best.yaml").is_file()


def test_a_killed_trial_is_failed_and_another_takes_its_place(folder):
    command = ["tune", "recipe.yaml", "--trials", "1"]
    killed = end_code(start(command, folder / "killed.log", prepare=partial(kill_at_step, 2)))
    before = states(folder)

    printed = tune(folder, 1)

    assert killed == -signal.SIGKILL
    assert before == ["RUNNING"]
    assert states(folder) == ["FAIL", "COMPLETE"]
    assert "trial 1 done" in printed


def test_machines_share_a_study_by_its_database_and_replace_what_one_of_them_lost(folder):
    storage = folder / "shared.db"
    command = ["tune", "../recipe.yaml", "data.train.folder=../pictures", "--storage", f"sqlite:///{storage}"]
    machines = [folder / "one", folder / "two"]
    for machine in machines:
        machine.mkdir()

    def begin(machine: Path):
        return start([*command, "--trials", "3"], machine / "log", prepare=partial(os.chdir, machine))

    codes = [end_code(worker) for worker in list(map(begin, machines))]
    printed = [(machine / "log").read_text() for machine in machines]
    with sqlite3.connect(storage) as database:
        database.execute("update trials set state = 'RUNNING' where number = 0")
        database.execute("update trial_heartbeats set heartbeat = '2020-01-01 00:00:00'")
    codes.append(end_code(begin(machines[1])))

    with sqlite3.connect(storage) as database:
        ended = [row[0] for row in database.execute("select state from trials order by number")]
    assert codes == [0, 0, 0], printed
    assert ended[0] == "FAIL"
    assert sum(state in ("COMPLETE", "PRUNED") for state in ended) == 3
    runs = [path.name for machine in machines for path in machine.glob("study/trials/*")]
    assert len(runs) == len(set(runs)) == 4
    assert (machines[1] / "study/best.yaml").is_file()


def test_a_database_that_cannot_be_used_is_told_without_its_password(folder):
    storage = "sqlite:////no/such/folder/tune.db"
    told = run_program("tune", "recipe.yaml", "--storage", storage, folder=folder)
    unknown = run_program("tune", "recipe.yaml", "--storage", "oracle://me:secret@db/x", folder=folder)

    assert (told.returncode, unknown.returncode) == (2, 2)
    assert "unable to open database file" in told.stderr
    assert "oracle://me:***@db/x" in unknown.stderr
    assert "secret" not in unknown.stderr


def test_signals_stop_the_workers_of_a_study_and_it_goes_on_when_started_again(folder):
    command, numbers = ["tune", "recipe.yaml", "--trials", "2"], (signal.SIGINT, signal.SIGTERM)
    logs = [folder / f"{number.name}.log" for number in numbers]
    workers = [
        start(command, log, prepare=partial(signal_at_step, 2, number))
        for log, number in zip(logs, numbers, strict=True)
    ]

    codes = [end_code(worker) for worker in workers]
    stopped = states(folder)
    tune(folder, 2)

    assert codes == [130, 143]
    assert len(stopped) == 2
    assert "COMPLETE" not in stopped
    assert all("go on with the same command" in log.read_text() for log in logs)
    assert states(folder) == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert not [*(folder / "study/trials").glob("*.lock")]
    assert (folder / "study/best.yaml").is_file()


def test_a_failed_trial_is_shown_and_the_study_goes_on(folder):
    write_recipe(folder, {"search": {"model.name": {"choices": ["test_efficientnet", "no_such_model"]}}})

    printed = tune(folder, 3)

    assert {"COMPLETE", "FAIL"} == set(states(folder))
    assert len(states(folder)) == 3
    assert re.search(r"trial \d failed: .*no_such_model", printed)


def test_a_trial_that_is_worse_than_the_median_is_given_up(folder):
    write_recipe(
        folder,
        {
            "search": {"training.learning_rate": {"low": 1.0e-6, "high": 1.0, "log": True}},
            "metric": "loss",
            "direction": "minimize",
        },
    )

    printed = tune(folder, 8)

    assert "PRUNED" in states(folder)
    assert re.search(r"trial \d+ given up after evaluation \d", printed)


@pytest.mark.parametrize(
    ("tune", "told"),
    [
        ({"search": {"training.learning_rat": {"low": 1, "high": 2}}}, "did you mean 'learning_rate'"),
        ({"search": {"loss.name": {"choices": ["cros-entropy"]}}}, "did you mean 'cross-entropy'"),
        ({"search": {"output": {"choices": ["a"]}}}, "output is the same for all trials"),
        ({"search": {"model.drop_rate": {"low": 0.5, "high": 0.1}}}, "wanted low below high"),
        ({"search": {"model.drop_rate": {"low": 0.1, "hi": 0.5}}}, "unknown key"),
        ({"search": SEARCH, "metric": "accuracy"}, "`metric` and `direction` together"),
        ({"search": {}}, "tune.search"),
    ],
)
def test_mistakes_of_a_search_are_told_with_their_line(folder, tune, told):
    write_recipe(folder, tune)

    done = run_program("tune", "recipe.yaml", folder=folder)

    assert done.returncode == 2
    assert re.search(r"recipe\.yaml:\d+: tune", done.stderr)
    assert told in done.stderr
    assert not (folder / "study").exists()


def test_a_metric_that_is_not_measured_ends_the_study_with_those_that_are(folder):
    write_recipe(folder, {"search": SEARCH, "metric": "acuracy", "direction": "maximize"})

    done = run_program("tune", "recipe.yaml", folder=folder)

    assert done.returncode == 2
    assert re.search(r"tune\.metric: found 'acuracy'.*accuracy", done.stderr)


def test_the_study_of_another_recipe_is_not_gone_on_with(folder):
    tune(folder, 1)
    write_recipe(folder, {"search": SEARCH}, learning_rate=0.1)

    done = run_program("tune", "recipe.yaml", folder=folder)

    assert done.returncode == 2
    assert "study of another recipe" in done.stderr
