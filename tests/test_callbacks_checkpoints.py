"""Which checkpoints stay, which of them is the best, and what a crash may leave behind."""

import json
import os
import shutil

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_tasks.callbacks import checkpoints
from hf_tasks.callbacks.checkpoints import (
    COMPLETE_MARK,
    STATE_FILE,
    KeepCheckpoints,
    best_steps,
    checkpoint_folders,
    last_complete_checkpoint,
    remove_incomplete_checkpoints,
    settle_checkpoints,
    state_of,
)
from hf_tasks.errors import UserError


def write_checkpoints(folder, steps, *, mark: bool = True) -> None:
    for step in steps:
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "model.safetensors").write_bytes(b"tensors")
        if mark:
            (checkpoint / COMPLETE_MARK).touch()


def arguments(folder, **options) -> TrainingArguments:
    chosen = {"metric_for_best_model": "accuracy", "greater_is_better": True, "report_to": "none", **options}
    return TrainingArguments(output_dir=str(folder), use_cpu=True, **chosen)


def state_after(results: dict[int, float], *, key: str = "eval_accuracy") -> TrainerState:
    history = [{"step": step, key: value} for step, value in results.items()]
    return TrainerState(global_step=max(results), log_history=history)


def steps_in(folder) -> list[int]:
    return list(checkpoint_folders(folder))


def save_all(folder, results, *, keep_best: int, **options) -> TrainerState:
    """What the Trainer does at each step: evaluate, write a checkpoint, call on_save."""
    callback, seen = KeepCheckpoints(keep_best), {}
    for step, value in results.items():
        seen[step] = value
        state = state_after(seen, key=f"eval_{options.get('metric_for_best_model', 'accuracy')}")
        write_checkpoints(folder, [step], mark=False)
        callback.on_save(arguments(folder, **options), state, TrainerControl())
    return state


@pytest.mark.parametrize(
    ("keep_best", "kept"),
    [(1, [20, 50]), (2, [20, 40, 50]), (3, [10, 20, 40, 50]), (9, [10, 20, 30, 40, 50])],
)
def test_the_n_best_and_the_last_are_kept(tmp_path, keep_best, kept):
    results = {10: 0.5, 20: 0.9, 30: 0.3, 40: 0.7, 50: 0.1}

    state = save_all(tmp_path, results, keep_best=keep_best)

    assert steps_in(tmp_path) == kept
    assert all((path / COMPLETE_MARK).is_file() for path in checkpoint_folders(tmp_path).values())
    assert state.best_model_checkpoint == str(tmp_path / "checkpoint-20")


def test_lower_is_better_where_the_arguments_say_so(tmp_path):
    results = {1: 0.5, 2: 0.2, 3: 0.4}

    save_all(tmp_path, results, keep_best=1, metric_for_best_model="loss", greater_is_better=False)

    assert steps_in(tmp_path) == [2, 3]


def test_of_equal_results_the_earlier_is_the_better(tmp_path):
    save_all(tmp_path, {1: 0.5, 2: 0.5, 3: 0.5}, keep_best=1)

    assert steps_in(tmp_path) == [1, 3]


def test_a_result_that_is_no_number_is_never_the_best(tmp_path):
    steps = best_steps(state_after({1: float("nan"), 2: 0.1, 3: 0.2}), arguments(tmp_path), saved=[1, 2, 3])

    assert steps == [3, 2]


def test_the_best_is_the_best_that_was_saved(tmp_path):
    """Evaluated at every step, saved at every second: the Trainer would name step 1 and load nothing."""
    state = state_after({1: 0.9, 2: 0.6, 3: 0.8, 4: 0.5})
    state.best_global_step = 1
    write_checkpoints(tmp_path, [2, 4])

    settle_checkpoints(state, arguments(tmp_path), keep_best=1)

    assert state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert steps_in(tmp_path) == [2, 4]


def test_without_a_metric_the_last_is_kept(tmp_path):
    write_checkpoints(tmp_path, [1, 2, 3])
    state = TrainerState(global_step=3)

    settle_checkpoints(state, arguments(tmp_path, metric_for_best_model=None), keep_best=2)

    assert steps_in(tmp_path) == [3]
    assert state.best_model_checkpoint is None


def test_steps_are_compared_as_numbers(tmp_path):
    write_checkpoints(tmp_path, [900, 1000, 99])

    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-1000"


def test_a_checkpoint_without_the_mark_is_not_whole_and_is_removed(tmp_path):
    write_checkpoints(tmp_path, [1, 2])
    write_checkpoints(tmp_path, [3], mark=False)
    (tmp_path / "checkpoint-notes").mkdir()

    last = last_complete_checkpoint(tmp_path)
    remove_incomplete_checkpoints(tmp_path)

    assert last == tmp_path / "checkpoint-2"
    assert steps_in(tmp_path) == [1, 2]
    assert (tmp_path / "checkpoint-notes").is_dir()


def test_no_folder_means_no_checkpoint(tmp_path):
    remove_incomplete_checkpoints(tmp_path / "missing")

    assert last_complete_checkpoint(tmp_path / "missing") is None


def test_a_removal_cut_short_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    write_checkpoints(tmp_path, [1, 2, 3])

    def cut_short(path) -> None:
        (path / "model.safetensors").unlink()
        raise KeyboardInterrupt("cut short")

    monkeypatch.setattr(shutil, "rmtree", cut_short)
    with pytest.raises(KeyboardInterrupt, match="cut short"):
        settle_checkpoints(state_after({1: 0.1, 2: 0.2, 3: 0.3}), arguments(tmp_path), keep_best=1)
    monkeypatch.undo()
    remove_incomplete_checkpoints(tmp_path)

    assert all((path / "model.safetensors").is_file() for path in checkpoint_folders(tmp_path).values())
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-3"


def test_a_run_folder_that_was_moved_names_its_own_best(tmp_path):
    """A checkpoint's state holds the path of the best as it was then."""
    write_checkpoints(tmp_path / "now", [1, 2])
    state = state_after({1: 0.9, 2: 0.8})
    state.best_model_checkpoint = str(tmp_path / "before/checkpoint-1")

    KeepCheckpoints(1).on_train_begin(arguments(tmp_path / "now"), state, TrainerControl())

    assert state.best_model_checkpoint == str(tmp_path / "now/checkpoint-1")


def test_a_best_that_is_gone_is_not_named(tmp_path):
    write_checkpoints(tmp_path, [2])
    state = state_after({1: 0.9, 2: 0.8})

    KeepCheckpoints(1).on_train_begin(arguments(tmp_path), state, TrainerControl())

    assert state.best_model_checkpoint == str(tmp_path / "checkpoint-2")


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of step 7 as training leaves it."""
    write_checkpoints(tmp_path, [7], mark=False)
    state = state_after({7: 0.5})
    state.save_to_json(str(tmp_path / "checkpoint-7" / STATE_FILE))
    KeepCheckpoints(1).on_save(arguments(tmp_path), state, TrainerControl())
    return tmp_path / "checkpoint-7"


def test_the_mark_lists_what_was_written_and_the_state_is_read_again(saved):
    size = (saved / STATE_FILE).stat().st_size

    assert json.loads((saved / COMPLETE_MARK).read_text()) == {"model.safetensors": 7, STATE_FILE: size}
    assert state_of(saved).log_history == [{"step": 7, "eval_accuracy": 0.5}]


def test_all_of_a_checkpoint_is_on_the_disk_before_it_is_marked(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        checkpoints,
        "sync_file",
        lambda path: synced.append((path.name, (path.parent / COMPLETE_MARK).exists())),
    )

    save_all(tmp_path, {1: 0.5}, keep_best=1)

    assert synced == [("model.safetensors", False)]


def test_a_checkpoint_that_lost_part_of_a_file_is_refused(saved):
    os.truncate(saved / "model.safetensors", 5)

    with pytest.raises(
        UserError, match=r"checkpoint-7: damaged: model\.safetensors has 5 bytes, 7 were .*re"
    ):
        state_of(saved)


def test_a_checkpoint_that_lost_a_file_is_refused(saved):
    (saved / "model.safetensors").unlink()

    with pytest.raises(UserError, match=r"checkpoint-7: damaged: .*No such file.*remove this folder"):
        state_of(saved)


@pytest.mark.parametrize(
    "content",
    [b"", b"{no", b"[]", b"\xff", b"[" * 100_000, b'{"unknown": 1}', b'{"global_step": "7"}',
     b'{"global_step": 1000000000000000000}'],
    ids=["none", "cut", "list", "bytes", "deep", "unknown", "text", "far"],
)  # fmt: skip
def test_a_state_that_lies_is_refused_in_a_line(saved, content):
    (saved / COMPLETE_MARK).write_text("")
    (saved / STATE_FILE).write_bytes(content)

    with pytest.raises(UserError, match=r"checkpoint-7: damaged: .*; remove this folder") as refused:
        state_of(saved)

    assert "\n" not in str(refused.value)
