"""The search of `tune:` with Optuna: each trial is a whole run in OUTPUT/trials/NNN.

The Trainer's own hyperparameter_search sets fields of TrainingArguments alone. Here model, loss, augmentation
and data are searched too, which need a model, rows and a trainer of their own for each trial; so trials are
asked for and told one by one, and everything that `train` does and checks holds for them.
"""

import gc
import json
import math
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hf_tasks.artifacts import Artifacts
from hf_tasks.callbacks.hopeless import GivenUpError, StopHopeless
from hf_tasks.callbacks.interruption import SignalWatch
from hf_tasks.errors import MetricError, RecipeError, UserError
from hf_tasks.files import write_text
from hf_tasks.recipe import Recipe, load_recipe
from hf_tasks.recipe.search import assignment, best_recipe_text, trial_overrides
from hf_tasks.recipe.sections import Tune
from hf_tasks.workflow.setup import task_and_arguments
from hf_tasks.workflow.training import run

if TYPE_CHECKING:
    from optuna.trial import Trial

    from hf_tasks.workflow.study import SharedStudy

CHOSEN_BY = "training.metric_for_best_model"
STATES = {"COMPLETE": "done", "PRUNED": "given up", "FAIL": "failed", "RUNNING": "running"}


def tune(
    recipe: Recipe,
    *,
    trials: int,
    storage: str | None = None,
    trust_remote_code: bool = False,
    console: Console,
) -> Path:
    """Run trials until all processes together have begun the wanted number; returns the best recipe's file.

    Started again with the same recipe it goes on. A trial that fails is shown and counted; one whose process
    was killed is not counted.

    Args:
        recipe: with a section `tune`.
        trials: wanted in all, those of earlier starts and of other processes among them.
        storage: address of the database that several machines share; None for tune.db in the output folder.
        trust_remote_code: allow the recipe's `metrics` to fetch and run code of the Hub.
        console: where progress and the table of trials are shown.

    Raises:
        RecipeError: there is nothing to search, or the folder holds something else.
        UserError: Optuna is not installed, the database cannot be used, this is one of a group of processes,
            or no trial ended well.
        Interrupted: Ctrl-C or SIGTERM; the trial at hand is lost, the others are kept.
    """
    section = _require_section(recipe)
    _, arguments = task_and_arguments(recipe)
    is_maximized = (
        arguments.greater_is_better if section.direction is None else section.direction == "maximize"
    )
    from hf_tasks.workflow.study import SharedStudy

    direction = "maximize" if is_maximized else "minimize"
    study = SharedStudy(recipe.output, recipe_text=recipe.text, direction=direction, storage=storage)
    metric = section.metric or arguments.metric_for_best_model
    with SignalWatch():
        while _run_next(study, section, wanted=trials, trust_remote_code=trust_remote_code, console=console):
            _write_best(study, section, metric)
    with study.lock:
        study.fail_killed()
    console.print(trials_table(study, section, metric))
    best = _write_best(study, section, metric)
    if best is None:
        reasons = [trial.user_attrs["reason"] for trial in study.trials() if "reason" in trial.user_attrs]
        last = f", the last because of: {reasons[-1]}" if reasons else ""
        raise UserError(f"{recipe.output}: no trial has ended well{last}")
    return best


def trials_table(study: "SharedStudy", section: Tune, metric: str) -> Table:
    """A row for each trial, the best one marked."""
    from hf_tasks.workflow.study import chosen_values

    table = Table("trial", "state", metric, "values", show_lines=len(section.search) > 1)
    best = study.best()
    for trial in study.trials():
        values = chosen_values(trial, section.search)
        shown = "\n".join(f"{key} = {_short(value)}" for key, value in values.items())
        is_best = best is not None and trial.number == best.number
        result = "" if trial.value is None else f"{trial.value:.4f}"
        table.add_row(
            str(trial.number),
            "best" if is_best else STATES.get(trial.state.name, trial.state.name.lower()),
            result,
            Text(shown, overflow="fold"),
            style="bold" if is_best else None,
        )
    return table


def _require_section(recipe: Recipe) -> Tune:
    if find_spec("optuna") is None:
        raise UserError(
            'tune: optuna cannot be imported; install what it needs: pip install "hf_tasks[tune]"'
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("tune: a trial runs in one process; start `hf-tasks tune` several times instead")
    if recipe.tune is None:
        example = "tune: {search: {training.learning_rate: {low: 1.0e-5, high: 1.0e-2, log: true}}}"
        raise RecipeError([f"{recipe.path}: tune: missing; wanted what to search, such as `{example}`"])
    return recipe.tune


def _run_next(
    study: "SharedStudy", section: Tune, *, wanted: int, trust_remote_code: bool, console: Console
) -> bool:
    """Run a trial and note how it ended; False when enough have begun."""
    from hf_tasks.workflow.study import chosen_values

    with study.next_trial(wanted, section.search) as trial:
        if trial is None:
            return False
        values = chosen_values(trial, section.search)
        shown = "  ".join(f"{key}={_short(value)}" for key, value in values.items())
        console.print(f"trial {trial.number}: {shown}", markup=False, soft_wrap=True)
        outcome = _run_trial(study, trial, section, trust_remote_code=trust_remote_code, console=console)
        console.print(f"trial {trial.number} {outcome}", markup=False, soft_wrap=True)
    # Of the trial's tensors some hang in circles, until Python looks for those.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return True


def _run_trial(
    study: "SharedStudy", trial: "Trial", section: Tune, *, trust_remote_code: bool, console: Console
) -> str:
    """Run a trial, tell the study and say how it ended."""
    from optuna.trial import TrialState

    from hf_tasks.workflow.study import chosen_values

    def is_hopeless(evaluation: int, value: float) -> bool:
        trial.report(value, evaluation)
        return section.prune and trial.should_prune()

    folder, callback = study.run_folder(trial.number), StopHopeless(is_hopeless)
    overrides = trial_overrides(section, chosen_values(trial, section.search), folder)
    mlflow = load_recipe(study.recipe).report.mlflow
    if mlflow is not None and mlflow.register_as is not None:  # for the model that is chosen in the end
        overrides.append("report.mlflow.register_as=null")
    try:
        run(
            load_recipe(study.recipe, overrides),
            trust_remote_code=trust_remote_code,
            console=console,
            callbacks=[callback],
        )
        value = _require_result(callback.result)
    except GivenUpError as stop:
        study.end(trial, TrialState.PRUNED)
        return str(stop)
    except (UserError, MemoryError, RuntimeError) as error:
        if not isinstance(error, UserError) and not _is_lack_of_memory(error):
            raise
        study.end(trial, TrialState.FAIL, reason=str(error))
        if isinstance(error, MetricError):  # so it would be in every trial
            key = "tune.metric" if section.metric else CHOSEN_BY
            raise MetricError(str(error).replace(CHOSEN_BY, key)) from error
        return f"failed: {error}"
    finally:
        shutil.rmtree(Artifacts(folder).checkpoints, ignore_errors=True)
    study.end(trial, TrialState.COMPLETE, value=value)
    return f"done: {value:.4f}"


def _require_result(result: float | None) -> float:
    """What a trial is judged by."""
    if result is None:
        raise MetricError("training.eval_strategy: a trial was never evaluated; wanted epoch or steps")
    if not math.isfinite(result):
        raise UserError(f"the metric is {result}, wanted a finite number")
    return result


def _is_lack_of_memory(error: BaseException) -> bool:
    words = ("can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        word in str(error) for word in words
    )


def _write_best(study: "SharedStudy", section: Tune, metric: str) -> Path | None:
    """Write best.yaml, which trains the best trial anew with the exports and the upload of the recipe."""
    from hf_tasks.workflow.study import chosen_values

    with study.lock:
        best = study.best()
        if best is None:
            return None
        values, path = chosen_values(best, section.search), study.folder / "best.yaml"
        won = "".join(f"#   {assignment(key, value)}\n" for key, value in values.items())
        ended = sum(trial.value is not None for trial in study.trials())
        head = (
            f"# Found by `hf-tasks tune`: {metric} {best.value:.6g}, trial {best.number}, best of {ended}.\n"
        )
        overrides = trial_overrides(section, values, study.folder / "best")
        kept = [text for text in overrides if text.partition("=")[0] not in {"hub", "export", "tune"}]
        text = best_recipe_text(study.recipe, kept, output=study.folder / "best")
        write_text(path, head + won + text)
    return path


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
