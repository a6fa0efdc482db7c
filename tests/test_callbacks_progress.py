"""What the lines of an evaluation say."""

import io

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_tasks.callbacks.progress import ShowProgress, _lines


@pytest.mark.parametrize(
    ("max_steps", "step", "epoch", "said"),
    [(-1, 12, 2.0, "epoch 2/3"), (15, 15, 2.5, "epoch 2.5/2.5"), (15, 6, 1.0, "epoch 1/2.5")],
)
def test_epochs_are_counted_up_to_what_is_planned(tmp_path, max_steps, step, epoch, said):
    written = io.StringIO()
    arguments = TrainingArguments(tmp_path, num_train_epochs=3, max_steps=max_steps, report_to="none")
    state = TrainerState(
        epoch=epoch, global_step=step, max_steps=max_steps if max_steps > 0 else 18, num_train_epochs=3
    )

    ShowProgress(Console(file=written), ()).on_evaluate(arguments, state, TrainerControl(), metrics={})

    assert written.getvalue().strip() == said


def test_figures_that_do_not_fit_a_line_stand_whole_in_the_next():
    parts = ["epoch 1/3", "train loss 0.6864", "loss 0.6897", "accuracy 0.2500", "average_precision 0.2973"]

    assert _lines(parts, 80) == [
        "epoch 1/3  train loss 0.6864  loss 0.6897  accuracy 0.2500",
        "  average_precision 0.2973",
    ]
    assert _lines(parts, 200) == ["  ".join(parts)]
