"""A schedule that is longer than its run is refused; others are not looked at."""

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_tasks.callbacks.schedule import RequireRoomForSchedule
from hf_tasks.errors import RecipeError


def begin(tmp_path, steps: int, scheduler: str = "warmup_stable_decay") -> None:
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        lr_scheduler_type=scheduler,
        lr_scheduler_kwargs={"num_decay_steps": 90},
        warmup_steps=10,
        use_cpu=True,
        report_to="none",
    )
    RequireRoomForSchedule().on_train_begin(arguments, TrainerState(max_steps=steps), TrainerControl())


def test_warm_up_and_decay_may_fill_the_run(tmp_path):
    begin(tmp_path, 100)


def test_a_run_shorter_than_warm_up_and_decay_is_refused(tmp_path):
    with pytest.raises(
        RecipeError, match=r"90 steps of decay after 10 of warm-up, but the run has 99; shorten"
    ):
        begin(tmp_path, 99)


def test_other_schedules_are_not_looked_at(tmp_path):
    begin(tmp_path, 99, scheduler="cosine")
