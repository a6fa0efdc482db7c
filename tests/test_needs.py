"""What a run will need of time, disk and memory, reckoned by hand from a trial, and what is too little."""

from dataclasses import replace

import pytest
import torch
from transformers import TrainingArguments

from hf_tasks.callbacks.trial import Trial
from hf_tasks.recipe import load_recipe
from hf_tasks.workflow.checking import _told
from hf_tasks.workflow.needs import Needs, estimate_needs, find_shortages, shown_bytes, shown_seconds

TRIAL = Trial(
    seconds_per_step=0.5,
    peak_bytes=700,
    examples=100,
    evaluation_seconds=4.0,
    checkpoint_bytes=10,
    model_bytes=5,
)
ENOUGH = Needs(
    steps=1,
    seconds_per_step=1.0,
    seconds=1.0,
    memory_bytes=900,
    memory_there=1000,
    disk_bytes=2048,
    disk_free=2048,
)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"task: image-classification\noutput: {tmp_path}/not/yet/there\n"
        "data: {train: {folder: pictures}}\nmodel: {name: resnet18}\ncheckpoints: {keep_best: 2}\n"
    )
    return load_recipe(path)


@pytest.mark.parametrize(
    ("options", "steps", "seconds"),
    [
        # 100 rows are half of all; batches of 8 x 2: 12.5 steps an epoch. An evaluation of all takes 8 s.
        ({"num_train_epochs": 3, "eval_strategy": "epoch"}, 39, 39 * 0.5 + 3 * 8),
        ({"max_steps": 20, "eval_strategy": "steps", "eval_steps": 6}, 20, 20 * 0.5 + 3 * 8),
    ],
)
def test_needs_are_those_of_all_rows(recipe, tmp_path, options, steps, seconds):
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        use_cpu=True,
        **options,
    )

    needs = estimate_needs(recipe, arguments, TRIAL, share=0.5)

    assert (needs.steps, needs.seconds) == (steps, pytest.approx(seconds))
    # The two best, the last, one that is being written, and the model.
    assert (needs.disk_bytes, needs.memory_bytes) == (4 * 10 + 5, 700)
    assert needs.disk_free > 0


def test_what_is_enough_is_no_finding():
    assert find_shortages(ENOUGH) == []
    assert find_shortages(replace(ENOUGH, memory_there=None)) == []


def test_too_little_disk_is_an_error_and_a_full_memory_a_warning():
    disk, memory = find_shortages(replace(ENOUGH, disk_bytes=2049, memory_bytes=901))

    assert (disk.severity, disk.kind) == ("error", "too little space for checkpoints")
    assert disk.examples == ("wanted 2 KiB, free are 2 KiB",)
    assert (memory.severity, memory.kind) == ("warning", "training fills the memory")
    assert memory.examples == ("901 B of 0.977 KiB",)


def test_a_step_that_does_not_fit_into_memory_is_a_finding_and_no_end():
    findings = []

    with _told(findings, "the trial"):
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    assert [finding.kind for finding in findings] == ["a step does not fit into memory"]
    assert findings[0].examples == ("tried to allocate 20 GiB",)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.034, "0.034 s"),
        (7.25, "7.2 s"),
        (119, "119 s"),
        (7199, "120 min"),
        (9000, "2.5 h"),
        (1e7, "116 days"),
    ],
)
def test_a_time_is_shown_in_plain_digits(seconds, shown):
    assert shown_seconds(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(999, "999 B"), (1010, "0.986 KiB"), (3 * 2**30, "3 GiB"), (5 * 2**40, "5 TiB")]
)
def test_a_size_is_shown_in_plain_digits(count, shown):
    assert shown_bytes(count) == shown
