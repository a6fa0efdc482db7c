"""The log history without gaps, and early stopping counted from it."""

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_tasks.callbacks.history import LogBeforePauses, mean_training_loss
from hf_tasks.callbacks.stopping import StopEarly, evaluations_without_gain, training_has_ended


def arguments(tmp_path, **options) -> TrainingArguments:
    chosen = {"metric_for_best_model": "accuracy", "greater_is_better": True, "report_to": "none", **options}
    return TrainingArguments(output_dir=str(tmp_path), eval_strategy="epoch", use_cpu=True, **chosen)


def state_after(results: list[float], **values) -> TrainerState:
    history = [{"step": step, "eval_accuracy": value} for step, value in enumerate(results, 1)]
    return TrainerState(log_history=history, **values)


@pytest.mark.parametrize("pause", ["should_evaluate", "should_save", "should_training_stop"])
def test_the_loss_is_logged_before_every_pause(pause, tmp_path):
    control = TrainerControl(**{pause: True})

    LogBeforePauses().on_step_end(arguments(tmp_path), TrainerState(), control)

    assert control.should_log


def test_a_step_without_a_pause_is_not_logged(tmp_path):
    control = TrainerControl()

    LogBeforePauses().on_step_end(arguments(tmp_path), TrainerState(), control)

    assert not control.should_log


def test_the_mean_loss_weighs_each_entry_by_its_steps():
    entries = [{"step": 2, "loss": 4.0}, {"step": 2, "eval_loss": 9.0}, {"step": 5, "loss": 1.0}]

    mean = mean_training_loss(TrainerState(log_history=entries))

    assert mean == (2 * 4.0 + 3 * 1.0) / 5


def test_no_logs_have_no_mean_loss():
    assert mean_training_loss(TrainerState()) is None


@pytest.mark.parametrize(
    ("results", "threshold", "passed"),
    [
        ([], 0.0, 0),
        ([0.5], 0.0, 0),
        ([0.5, 0.4, 0.5], 0.0, 2),
        ([0.5, 0.4, 0.6], 0.0, 0),
        ([0.5, 0.55, 0.58], 0.1, 2),  # better, but never by a tenth than the best before
        ([0.5, 0.7, 0.75], 0.1, 1),
        ([float("nan"), float("nan"), 0.1, 0.05], 0.0, 1),
    ],
)
def test_evaluations_without_gain_are_counted_as_the_callback_counts_them(
    tmp_path, results, threshold, passed
):
    """The second way: transformers' own callback, fed one evaluation after the other."""
    args, state = arguments(tmp_path), TrainerState()
    live = StopEarly(early_stopping_patience=99, early_stopping_threshold=threshold)
    for value in results:
        live.on_evaluate(args, state, TrainerControl(), metrics={"eval_accuracy": value})
        best = float("-inf") if state.best_metric is None else state.best_metric
        state.best_metric = value if value > best else best

    counted = evaluations_without_gain(state_after(results), args, threshold=threshold)

    assert counted == live.early_stopping_patience_counter == passed


def test_early_stopping_goes_on_counting_after_a_resume(tmp_path):
    callback = StopEarly(early_stopping_patience=3)
    state, control = state_after([0.5, 0.4, 0.4], best_metric=0.5), TrainerControl()

    callback.on_train_begin(arguments(tmp_path), state, control)
    callback.on_evaluate(arguments(tmp_path), state, control, metrics={"eval_accuracy": 0.45})

    assert control.should_training_stop


@pytest.mark.parametrize(
    ("values", "options", "patience", "ended"),
    [
        ({"global_step": 10}, {"max_steps": 10}, None, True),
        ({"global_step": 10}, {"max_steps": 12}, None, False),
        ({"epoch": 3.0, "global_step": 9}, {"num_train_epochs": 3}, None, True),
        ({"epoch": 3.0, "global_step": 9}, {"num_train_epochs": 4}, None, False),
        ({"epoch": 2.67, "global_step": 8}, {"num_train_epochs": 2.5}, None, True),
        ({"epoch": 1.0, "global_step": 3}, {"num_train_epochs": 4}, 2, True),
        ({"epoch": 1.0, "global_step": 3}, {"num_train_epochs": 4}, 3, False),
    ],
)
def test_training_has_ended_by_the_plan_as_it_is_now(tmp_path, values, options, patience, ended):
    state = state_after([0.5, 0.4, 0.3], **values)

    has_ended = training_has_ended(state, arguments(tmp_path, **options), patience=patience)

    assert has_ended == ended
