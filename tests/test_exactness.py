"""A run is exact: trained twice, killed and resumed, with other workers, batch sizes and process counts."""

import csv
import json
import random
import signal
from functools import partial

import numpy as np
import pytest
import yaml
from forked_program import (
    end_code,
    fill_disk_at_step,
    first_alone_writes_below,
    kill_after_training,
    kill_at_step,
    kill_in_checkpoint,
    kill_in_removal,
    run_group,
    run_to_end,
    signal_at_step,
    start,
)
from PIL import Image
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow

TRAIN_ROWS, VALIDATION_ROWS = 44, 23  # 23 is a multiple of no batch size and no process count
STEPS_PER_EPOCH, STEPS = 6, 16  # batches of 8; ends inside the third epoch
KILLED_AT = random.Random(1).sample(range(1, STEPS), 3)
SPEED = ("seconds", "examples_per_second")


def write_pictures(folder, rows: int, *, seed: int) -> None:
    generator = np.random.default_rng(seed)
    folder.mkdir()
    lines = ["image_path,label"]
    for row in range(rows):
        label = row % 3
        pixels = generator.integers(0, 150, (24, 24, 3), dtype=np.uint8)
        pixels[..., label] += 60
        Image.fromarray(pixels).save(folder / f"{row}.png")
        lines.append(f"{row}.png,{'abc'[label]}")
    (folder / "rows.csv").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures, and a recipe with all that draws random numbers: augmentation, shuffling, dropout."""
    folder = tmp_path_factory.mktemp("exactness")
    write_pictures(folder / "train", TRAIN_ROWS, seed=0)
    write_pictures(folder / "validation", VALIDATION_ROWS, seed=1)
    recipe = {
        "task": "image-classification",
        "output": str(folder / "runs"),
        "data": {
            name: {"table": str(folder / name / "rows.csv"), "images": str(folder / name)}
            for name in ("train", "validation")
        },
        "model": {"name": "test_efficientnet", "pretrained": False, "image_size": 32, "drop_rate": 0.2},
        "augmentation": "medium",
        "training": {
            "max_steps": STEPS,
            "per_device_train_batch_size": 8,
            "learning_rate": 2e-3,
            "eval_strategy": "steps",
            "eval_steps": 4,
            "save_strategy": "steps",
            "save_steps": 4,
            "logging_steps": 3,
            "dataloader_num_workers": 0,
        },
        "checkpoints": {"keep_best": 2},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def train_arguments(folder, name: str, *overrides: str) -> list[str]:
    return ["train", str(folder / "recipe.yaml"), f"output={folder / name}", *overrides]


@pytest.fixture(scope="module")
def uninterrupted(folder):
    run_to_end(train_arguments(folder, "uninterrupted"), folder / "uninterrupted.log")
    return folder / "uninterrupted"


def metrics_of(run) -> dict:
    """metrics.json less the figures of speed."""
    metrics = json.loads((run / "metrics.json").read_text())
    for name in SPEED:
        metrics.get("training", {}).pop(name, None)
    return metrics


def history_of(run) -> list[dict]:
    """The log of the last checkpoint less the figures of speed."""
    last = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    entries = json.loads((last / "trainer_state.json").read_text())["log_history"]
    return [
        {key: value for key, value in entry.items() if "_per_second" not in key and "time" not in key}
        for entry in entries
    ]


def require_same_run(run, other) -> None:
    """Weights bit for bit, metrics, log and predictions to the last digit, the same checkpoints kept."""
    assert (run / "model/model.safetensors").read_bytes() == (other / "model/model.safetensors").read_bytes()
    assert metrics_of(run) == metrics_of(other)
    assert history_of(run) == history_of(other)
    kept, kept_by_other = (
        sorted(path.name for path in (one / "checkpoints").iterdir()) for one in (run, other)
    )
    assert kept == kept_by_other
    assert (run / "predictions.csv").read_text() == (other / "predictions.csv").read_text().replace(
        str(other), str(run)
    )


def kill_and_resume(folder, name: str, fault, *overrides: str):
    arguments = train_arguments(folder, name, *overrides)
    killed = end_code(start(arguments, folder / f"{name}.log", prepare=fault))
    assert killed == -signal.SIGKILL
    assert not (folder / name / "metrics.json").exists()
    run_to_end([*arguments, "--resume"], folder / f"{name}.log")
    return folder / name


def test_trained_twice_with_other_workers_is_the_same_run(folder, uninterrupted):
    workers = "training.dataloader_num_workers=2"

    run_to_end(train_arguments(folder, "again", workers), folder / "again.log")

    require_same_run(folder / "again", uninterrupted)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", KILLED_AT)
def test_killed_at_a_step_and_resumed_is_the_same_run(folder, uninterrupted, step, workers):
    overrides = f"training.dataloader_num_workers={workers}"

    resumed = kill_and_resume(folder, f"killed-{step}-{workers}", partial(kill_at_step, step), overrides)

    require_same_run(resumed, uninterrupted)


def require_same_answer(run, other) -> None:
    """Weights bit for bit, predictions and evaluations to the last digit.

    An interrupted run logs its loss once more, where it was stopped.
    """
    assert (run / "model/model.safetensors").read_bytes() == (other / "model/model.safetensors").read_bytes()
    assert rows_of(run) == [
        {**row, "path": row["path"].replace(str(other), str(run))} for row in rows_of(other)
    ]
    evaluations = [[entry for entry in history_of(one) if "eval_loss" in entry] for one in (run, other)]
    assert evaluations[0] == evaluations[1]


@pytest.mark.parametrize(
    ("step", "number", "workers", "saved"),
    [(3, signal.SIGINT, 0, 3), (8, signal.SIGTERM, 2, 8), (6, signal.SIGINT, 2, 6)],
)
def test_interrupted_in_a_step_saves_it_and_resumed_is_the_same_run(
    folder, uninterrupted, step, number, workers, saved
):
    name = f"interrupted-{step}"
    arguments = train_arguments(folder, name, f"training.dataloader_num_workers={workers}")
    fault = partial(signal_at_step, step, number)

    code = end_code(start(arguments, folder / f"{name}.log", prepare=fault))

    printed = (folder / f"{name}.log").read_text()
    assert code == 128 + number, printed
    assert "Traceback" not in printed
    assert f"stopped at step {saved}, which is saved" in printed
    assert f"hf-tasks train {folder / name}/recipe.yaml --resume" in printed
    told = run_to_end(["train", f"{folder / name}/recipe.yaml", "--resume"], folder / f"{name}-resumed.log")
    assert f"goes on after step {saved}\n" in told
    require_same_answer(folder / name, uninterrupted)


def press_twice() -> None:
    from hf_tasks.callbacks import interruption

    interruption.SAME_PRESS_SECONDS = -1.0
    signal_at_step(3, signal.SIGINT)
    signal_at_step(3, signal.SIGINT)


def test_a_second_signal_ends_the_run_at_once(folder):
    code = end_code(start(train_arguments(folder, "twice"), folder / "twice.log", prepare=press_twice))

    printed = (folder / "twice.log").read_text()
    assert code == 128 + signal.SIGINT, printed
    assert "Traceback" not in printed
    assert "no checkpoint is there yet, start it again" in printed


def test_two_processes_of_which_one_is_interrupted_save_the_same_step(folder):
    options = ("training.max_steps=7", "training.save_steps=7", "training.eval_steps=7")
    run_group(train_arguments(folder, "pair", *options), folder / "pair.log", processes=2)
    arguments = train_arguments(folder, "pair-stopped", *options)
    # The third step ends the epoch.
    fault = partial(signal_at_step, 4, signal.SIGTERM, rank=1)

    run_group(arguments, folder / "pair-stopped.log", processes=2, prepare=fault, code=128 + signal.SIGTERM)

    assert [path.name for path in (folder / "pair-stopped/checkpoints").iterdir()] == ["checkpoint-5"]
    run_group([*arguments, "--resume"], folder / "pair-resumed.log", processes=2)
    require_same_answer(folder / "pair-stopped", folder / "pair")


def test_killed_while_a_checkpoint_is_written_and_resumed_is_the_same_run(folder, uninterrupted):
    resumed = kill_and_resume(folder, "killed-in-checkpoint", partial(kill_in_checkpoint, 8))

    require_same_run(resumed, uninterrupted)
    speed = json.loads((resumed / "metrics.json").read_text())["training"]
    rows = TRAIN_ROWS * (STEPS - 4) / STEPS_PER_EPOCH  # since the checkpoint before
    assert speed["examples_per_second"] * speed["seconds"] == pytest.approx(rows, rel=1e-3)


def test_a_full_disk_in_a_checkpoint_is_told_and_the_one_before_is_resumed(folder, uninterrupted):
    arguments = train_arguments(folder, "full")

    ended = end_code(start(arguments, folder / "full.log", prepare=partial(fill_disk_at_step, 6)))
    printed = (folder / "full.log").read_text()
    run_to_end([*arguments, "--resume"], folder / "full.log")

    assert ended == 2, printed
    assert "no room to write" in printed
    assert "checkpoint-4 is whole" in printed
    require_same_run(folder / "full", uninterrupted)


def test_killed_while_a_checkpoint_is_removed_and_resumed_is_the_same_run(folder, uninterrupted):
    resumed = kill_and_resume(folder, "killed-in-removal", kill_in_removal)

    require_same_run(resumed, uninterrupted)


def test_killed_after_the_last_step_moved_and_resumed_is_the_same_run(folder, uninterrupted):
    arguments = train_arguments(folder, "killed-at-end")
    killed = end_code(start(arguments, folder / "log", prepare=kill_after_training))
    (folder / "killed-at-end").rename(folder / "moved")

    run_to_end([*train_arguments(folder, "moved"), "--resume"], folder / "log")

    assert killed == -signal.SIGKILL
    require_same_run(folder / "moved", uninterrupted)


def test_killed_after_stopping_early_and_resumed_is_the_same_run(folder):
    override = "early_stopping={patience: 1}"
    run_to_end(train_arguments(folder, "early", override), folder / "early.log")

    resumed = kill_and_resume(folder, "killed-early", kill_after_training, override)

    assert metrics_of(folder / "early")["training"]["steps"] < STEPS
    require_same_run(resumed, folder / "early")


def test_two_processes_killed_and_resumed_are_the_same_run(folder):
    options = ("training.max_steps=7", "training.save_steps=2", "training.eval_steps=2")
    arguments = train_arguments(folder, "two", *options)
    run_group(arguments, folder / "two.log", processes=2)

    arguments = train_arguments(folder, "two-killed", *options)
    fault = partial(kill_at_step, 5)
    run_group(arguments, folder / "log", processes=2, prepare=fault, code=-signal.SIGKILL)
    run_group([*arguments, "--resume"], folder / "log", processes=2)

    require_same_run(folder / "two-killed", folder / "two")


def test_the_best_and_the_last_checkpoint_are_left_and_the_best_is_the_model(uninterrupted):
    results = {
        entry["step"]: entry["eval_accuracy"]
        for entry in history_of(uninterrupted)
        if "eval_accuracy" in entry
    }
    best_first = sorted(results, key=lambda step: (-results[step], step))

    kept = {int(path.name.split("-")[1]) for path in (uninterrupted / "checkpoints").iterdir()}

    assert list(results) == [4, 8, 12, 16]
    assert kept == {STEPS, *best_first[:2]}
    best = load_file(uninterrupted / f"checkpoints/checkpoint-{best_first[0]}/model.safetensors")
    model = load_file(uninterrupted / "model/model.safetensors")
    assert all(np.array_equal(model[name], best[name]) for name in best)
    assert metrics_of(uninterrupted)["training"]["best_step"] == best_first[0]


def evaluate(folder, run, *, batch_size: int, workers: int = 0, processes: int = 1):
    """`hf-tasks evaluate` with other settings: in a copy of the run, as its recipe holds them."""
    copy = folder / f"{run.name}-{batch_size}-{workers}-{processes}"
    copy.mkdir()
    (copy / "model").symlink_to(run / "model")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["training"] |= {"per_device_eval_batch_size": batch_size, "dataloader_num_workers": workers}
    (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    arguments = ["evaluate", str(copy)]
    if processes == 1:
        run_to_end(arguments, copy / "log")
    else:
        run_group(arguments, copy / "log", processes=processes)
    return copy / "evaluation"


def rows_of(evaluation) -> list[dict[str, str]]:
    with (evaluation / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def require_close(found, other) -> None:
    """The same keys and lengths, and numbers to 1e-5, however deep."""
    if isinstance(found, dict):
        assert found.keys() == other.keys()
        found, other = list(found.values()), list(other.values())
    if isinstance(found, list):
        assert len(found) == len(other)
        for one, other_one in zip(found, other, strict=True):
            require_close(one, other_one)
    else:
        assert found == pytest.approx(other, abs=1e-5)


def require_same_answers(evaluation, other) -> None:
    """Decisions and counts equal, losses and probabilities to 1e-5."""
    rows, other_rows = rows_of(evaluation), rows_of(other)
    assert len(rows) == VALIDATION_ROWS
    for name in ("path", "true", "predicted"):
        assert [row[name] for row in rows] == [row[name] for row in other_rows]
    for name in ("loss", "probability", "probability_a"):
        numbers, other_numbers = ([float(row[name]) for row in table] for table in (rows, other_rows))
        np.testing.assert_allclose(numbers, other_numbers, atol=1e-5, rtol=0)
    metrics, other_metrics = metrics_of(evaluation), metrics_of(other)
    for one in (metrics, other_metrics):
        one.pop("training", None)
    for name in ("loss", "intervals", "calibration"):
        require_close(metrics.pop(name), other_metrics.pop(name))
    assert metrics == other_metrics
    assert sum(map(sum, metrics["confusion_matrix"])) == VALIDATION_ROWS


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (7, 2), (64, 0)])
def test_answers_do_not_depend_on_batch_size_workers_and_processes(
    folder, uninterrupted, batch_size, workers, processes
):
    evaluation = evaluate(folder, uninterrupted, batch_size=batch_size, workers=workers, processes=processes)

    require_same_answers(evaluation, uninterrupted)


def test_two_processes_measure_the_model_that_is_saved(folder):
    """With batch norm: each process has seen other pictures, and only one of them saves."""
    overrides = ["training.load_best_model_at_end=false", "training.per_device_eval_batch_size=7"]
    steps = ["training.max_steps=4", "training.eval_steps=4"]
    run = folder / "last-of-two"

    run_group(train_arguments(folder, run.name, *steps, *overrides), folder / "last-of-two.log", processes=2)

    alone = evaluate(folder, run, batch_size=64)
    require_same_answers(run, alone)
    assert history_of(run)[-1]["eval_loss"] == pytest.approx(
        json.loads((alone / "metrics.json").read_text())["loss"], abs=1e-5
    )


def test_two_processes_train_as_one_with_the_same_global_batch(folder):
    """Without batch norm and dropout, which look at one process's part of the batch."""
    common = ["model.name=test_efficientnet_ln", "model.drop_rate=0", "training.max_steps=5"]
    steps = ["training.eval_steps=1", "training.save_steps=5"]
    names = {1: "one-process", 2: "two-processes"}

    for processes, name in names.items():
        batch = f"training.per_device_train_batch_size={8 // processes}"
        arguments = train_arguments(folder, name, *common, *steps, batch)
        alone = partial(first_alone_writes_below, folder / name)
        run_group(arguments, folder / f"{name}.log", processes=processes, prepare=alone)

    losses = {
        name: [entry["eval_loss"] for entry in history_of(folder / name) if "eval_loss" in entry]
        for name in names.values()
    }
    weights = [load_file(folder / name / "model/model.safetensors") for name in names.values()]
    assert len(losses["one-process"]) == 5
    np.testing.assert_allclose(losses["two-processes"], losses["one-process"], atol=1e-5, rtol=0)
    for name, tensor in weights[0].items():
        np.testing.assert_allclose(weights[1][name], tensor, atol=1e-4, rtol=0)
