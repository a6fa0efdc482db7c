"""The whole way from a recipe to a trained, measured and saved model, top to bottom."""

import shlex
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.utils import CONFIG_NAME

from hf_tasks.artifacts import Artifacts, write_json
from hf_tasks.callbacks.checkpoints import (
    explained_full_disk,
    last_complete_checkpoint,
    refused_pickles,
    settle_checkpoints,
    state_of,
    step_of,
)
from hf_tasks.callbacks.finite import RequireFiniteLoss, paths_of
from hf_tasks.callbacks.history import mean_training_loss
from hf_tasks.callbacks.interruption import SignalWatch, StopOnSignal
from hf_tasks.callbacks.pruning import compute_sparsity
from hf_tasks.callbacks.schedule import RequireRoomForSchedule
from hf_tasks.callbacks.stopping import training_has_ended
from hf_tasks.callbacks.trial import Trial, WatchTrial
from hf_tasks.contract.task import Splits, Task
from hf_tasks.errors import Interrupted, UserError
from hf_tasks.files import replace_folder, write_text, written_aside
from hf_tasks.recipe import Recipe
from hf_tasks.workflow.environment import describe_environment
from hf_tasks.workflow.exporting import export_trained, require_exports, try_export
from hf_tasks.workflow.feasible import require_precision, require_trainable, rows_of_trial
from hf_tasks.workflow.folders import require_output, require_writable
from hf_tasks.workflow.output import held_output
from hf_tasks.workflow.page import write_run_report
from hf_tasks.workflow.publishing import push, write_run_card
from hf_tasks.workflow.setup import add_callbacks, show_skipped, task_and_arguments, write_predictions
from hf_tasks.workflow.tracking import Trackers, reporting_into, require_trackers

TWO_STEPS = {
    "max_steps": 2,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "steps",
    "save_steps": 2,
    "logging_steps": 1,
}


def run(
    recipe: Recipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    trust_remote_code: bool = False,
    console: Console | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Artifacts:
    """Train, measure and save what a recipe describes.

    Args:
        recipe: what load_recipe returned.
        resume: continue from the last whole checkpoint, if the output folder has one.
        overwrite: replace an earlier run in the output folder.
        trust_remote_code: allow the recipe's `metrics` to fetch and run code of the Hub.
        console: where progress is shown.
        callbacks: further ones for the trainer, such as one that ends a trial of a search.

    Raises:
        RecipeError: the output folder holds a run, or TrainingArguments refuse a value.
        DataError: rows or pictures are not usable.
        ModelError: weights cannot be had.
        ExportError: the task has no exports, or a file is refused.
        Interrupted: Ctrl-C or SIGTERM; while steps are made, after a checkpoint is saved.
    """
    require_trackers(recipe)
    task, arguments = task_and_arguments(recipe)
    require_exports(recipe, task)
    artifacts = Artifacts(recipe.output)
    console = console or Console()
    require_output(artifacts.folder, may_exist=resume or overwrite)
    start = _prepare(recipe, task, arguments)
    say = partial(console.print, markup=False)
    try:
        with (
            SignalWatch() as watch,
            held_output(artifacts, arguments, overwrite=overwrite),
            Trackers(artifacts, recipe, say=say) as trackers,
        ):
            start = replace(start, watch=watch, callbacks=callbacks)
            _fit(recipe, start, trust_remote_code=trust_remote_code, console=console, trackers=trackers)
    except Interrupted as stop:
        raise _with_the_way_on(stop, artifacts, arguments) from None
    show_skipped(artifacts, say)
    if recipe.hub is not None and arguments.process_index == 0:
        console.print(f"uploaded: {push(artifacts.folder, recipe.hub.repo)}", markup=False, soft_wrap=True)
    return artifacts


def check(recipe: Recipe, *, trust_remote_code: bool = False, console: Console | None = None) -> Trial:
    """Two steps of everything that run does, in a folder of its own that is removed; what they took.

    Trackers are told too: MLflow in a database of its own, so that nothing of a trial is left on a server.

    Raises:
        UserError: what run would raise, or MLflow takes not all that it is told.
    """
    require_trackers(recipe)
    require_writable(recipe.output, key="output")
    aside = recipe.output.with_name(f".{recipe.output.name}.check")
    short = replace(recipe, output=aside, training={**recipe.training, **TWO_STEPS})
    task, arguments = task_and_arguments(short)
    require_exports(short, task)
    whole, trial = _prepare(short, task, arguments), WatchTrial()
    start = replace(whole, splits=whole.splits.head(rows_of_trial(whole.splits, arguments)), trial=trial)
    left, complaints = Artifacts(aside), list[str]()
    try:
        with SignalWatch():
            with Trackers(left, reporting_into(aside, short), say=complaints.append) as trackers:
                _fit(
                    short,
                    start,
                    trust_remote_code=trust_remote_code,
                    console=console or Console(),
                    trackers=trackers,
                )
            if complaints:
                raise UserError("\n".join(f"report.mlflow: {complaint}" for complaint in complaints))
            if arguments.process_index == 0:
                task.load_model(left.model)
        return trial.measured(whole.splits, start.splits, checkpoints=left.checkpoints, model=left.model)
    finally:
        if arguments.process_index == 0:
            shutil.rmtree(aside, ignore_errors=True)


@dataclass(frozen=True)
class _Start:
    """All that a run needs before it writes anything."""

    task: Task
    arguments: TrainingArguments
    weights: Any
    splits: Splits
    trial: WatchTrial | None = None
    """Set in a trial, which exports before it trains."""
    watch: SignalWatch = field(default_factory=SignalWatch)
    callbacks: Sequence[TrainerCallback] = ()


def _prepare(recipe: Recipe, task: Task, arguments: TrainingArguments) -> _Start:
    """Open weights and rows, the first process first, which fills the caches."""
    require_precision(recipe, arguments)
    with arguments.main_process_first(local=False):
        weights = task.open_weights(recipe.settings)
        return _Start(task, arguments, weights, task.prepare(recipe.settings))


def _with_the_way_on(stop: Interrupted, artifacts: Artifacts, arguments: TrainingArguments) -> Interrupted:
    """What happened, and the command that goes on from the last checkpoint, if there is one."""
    name = signal.Signals(stop.signal_number).name
    cause = "Ctrl-C" if stop.signal_number == signal.SIGINT else name
    if last_complete_checkpoint(artifacts.checkpoints) is None:
        way = "no checkpoint is there yet, start it again"
    else:
        launcher = "hf-tasks" if arguments.world_size == 1 else "accelerate launch -m hf_tasks"
        way = f"go on with: {launcher} train {shlex.quote(str(artifacts.recipe))} --resume"
    return Interrupted(stop.signal_number, f"{stop} ({cause}); {way}")


def _fit(
    recipe: Recipe,
    start: _Start,
    *,
    trust_remote_code: bool,
    console: Console,
    trackers: Trackers | None = None,
) -> None:
    """Train and leave all artifacts."""
    artifacts, task, arguments, splits = Artifacts(recipe.output), start.task, start.arguments, start.splits
    set_seed(arguments.seed)
    model = task.build_model(recipe.settings, start.weights, splits)
    entirely = start.trial is not None and arguments.process_index == 0
    try_export(recipe, task, model, splits, entirely=entirely)
    trainer = task.build_trainer(recipe.settings, model, splits, arguments, trust_remote_code)
    require_trainable(trainer, recipe)
    progress = add_callbacks(trainer, recipe, task, console)
    trainer.add_callback(start.trial or RequireRoomForSchedule)
    trainer.add_callback(RequireFiniteLoss(trainer, paths_of(splits.train)))
    if arguments.process_index == 0:
        _write_start(artifacts, recipe, arguments, splits.facts)
    checkpoint = last_complete_checkpoint(artifacts.checkpoints)
    if checkpoint is not None and arguments.process_index == 0:
        console.print(f"goes on after step {step_of(checkpoint)}", markup=False)
    if trackers is not None:
        defaults = task.training_defaults(recipe.settings)
        trackers.follow(trainer, task, training_defaults=defaults, checkpoint=checkpoint)
        if start.trial is None:
            trainer.add_callback(StopOnSignal(start.watch))
    for callback in start.callbacks:
        trainer.add_callback(callback)
    with explained_full_disk(artifacts.checkpoints):
        with closing(progress):
            facts = _train(trainer, checkpoint, recipe)
        _save_model(trainer, artifacts.model)
    predictions = task.compute_predictions(trainer, splits)
    if arguments.process_index == 0:
        _keep_fitted(model, predictions.fitted, artifacts.model)
        further: dict[str, Any] = {"training": facts}
        if recipe.pruning is not None:
            further["sparsity"] = compute_sparsity(trainer.model, recipe.pruning.layers)
        write_predictions(artifacts, predictions, further)
        try:
            if recipe.export is not None and start.trial is None:
                export_trained(
                    recipe,
                    task,
                    model,
                    splits,
                    console=console,
                    folder=artifacts.exports,
                    formats=recipe.export,
                )
        finally:  # a refused export leaves a report that says so
            write_run_report(artifacts, recipe, predictions.answers, trainer.state.log_history)
            write_run_card(recipe, artifacts)
            if trackers is not None:
                trackers.log_results(predictions, step=facts["best_step"])


def _train(trainer: Trainer, checkpoint: Path | None, recipe: Recipe) -> dict[str, Any]:
    """Train, from a checkpoint on if there is one, and leave the best weights in the trainer's model."""
    start, resumed, speed = TrainerState(), None, {}
    if checkpoint is not None:
        start, resumed = state_of(checkpoint), str(checkpoint)
    stopping = recipe.early_stopping
    patience, threshold = (None, 0.0) if stopping is None else (stopping.patience, stopping.threshold)
    if resumed is not None and training_has_ended(
        start, trainer.args, patience=patience, threshold=threshold
    ):
        _restore(trainer, start, resumed, keep_best=recipe.checkpoints.keep_best)
    else:
        with refused_pickles(resumed):
            trained = trainer.train(resume_from_checkpoint=resumed)
        speed = _speed(trainer, seconds=trained.metrics["train_runtime"], first_epoch=start.epoch or 0.0)
    state = trainer.state
    best = state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    return {
        "epochs": state.epoch,
        "steps": state.global_step,
        "best_step": state.global_step if best is None else step_of(Path(best)),
        "loss": mean_training_loss(state),
        **speed,
    }


def _restore(trainer: Trainer, state: TrainerState, checkpoint: str, *, keep_best: int) -> None:
    """Take up training at its end; the Trainer would go one step further where that is inside an epoch."""
    state.is_local_process_zero = trainer.is_local_process_zero()
    state.is_world_process_zero = trainer.is_world_process_zero()
    trainer.state = state
    settle_checkpoints(state, trainer.args, keep_best=keep_best)
    best = state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    trainer._load_from_checkpoint(best or checkpoint)
    trainer.callback_handler.on_train_end(trainer.args, state, trainer.control)


def _write_start(
    artifacts: Artifacts, recipe: Recipe, arguments: TrainingArguments, facts: Mapping[str, Any]
) -> None:
    write_text(artifacts.recipe, recipe.text)
    write_json(artifacts.data, facts)
    environment = describe_environment(device=str(arguments.device), processes=arguments.world_size)
    write_json(artifacts.environment, environment)


def _save_model(trainer: Trainer, folder: Path) -> None:
    aside = folder.with_name(f".{folder.name}.part")
    is_first = trainer.args.process_index == 0
    try:
        with trainer.args.main_process_first(local=False):
            if is_first:
                shutil.rmtree(aside, ignore_errors=True)
        trainer.save_model(str(aside))
        trainer.accelerator.wait_for_everyone()
        if is_first:
            # A pickle of ours has no place in a model that others load.
            (aside / "training_args.bin").unlink(missing_ok=True)
            replace_folder(aside, folder)
    finally:
        if is_first:
            shutil.rmtree(aside, ignore_errors=True)


def _keep_fitted(model: PreTrainedModel, fitted: Mapping[str, Any], folder: Path) -> None:
    """Weights are on disk before anything is measured, so the config is written a second time."""
    if fitted:
        model.config.update(fitted)
        with written_aside(folder / CONFIG_NAME) as aside:
            model.config.to_json_file(aside)


def _speed(trainer: Trainer, *, seconds: float, first_epoch: float) -> dict[str, float]:
    """Of the epochs since the start or the resume; some releases' own figure counts all that were planned."""
    examples = (trainer.state.epoch - first_epoch) * len(trainer.train_dataset)
    return {"seconds": seconds, "examples_per_second": round(examples / seconds, 3)}
