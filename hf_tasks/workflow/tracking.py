"""The trackers that a recipe asks for, MLflow and TensorBoard, told about one run."""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.resources import files as package_files
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from transformers import Trainer
from transformers.integrations import TensorBoardCallback

from hf_tasks.artifacts import Artifacts, read_json
from hf_tasks.callbacks.checkpoints import step_of
from hf_tasks.callbacks.journal import TrackingFiles
from hf_tasks.callbacks.mlflow import MLflowTracker, class_metrics, flatten
from hf_tasks.callbacks.mlflow_process import SenderProcess
from hf_tasks.callbacks.wrong_pictures import save_wrong
from hf_tasks.contract.answers import ClassificationAnswers, Predictions
from hf_tasks.contract.task import Task
from hf_tasks.errors import UserError
from hf_tasks.recipe import Recipe, load_recipe

EXTRAS = {"mlflow": ("mlflow",), "tensorboard": ("tensorboard", "matplotlib")}
"""Extras of ours and the packages they bring."""


def require_trackers(recipe: Recipe) -> None:
    """Check that what a recipe reports to is installed; nothing is imported.

    Raises:
        UserError: with the extra to install.
    """
    wanted = {"mlflow": recipe.report.mlflow is not None, "tensorboard": recipe.report.tensorboard}
    for extra, packages in EXTRAS.items():
        missing = [name for name in packages if find_spec(name) is None]
        if wanted[extra] and missing:
            raise UserError(
                f"report.{extra}: {' and '.join(missing)} cannot be imported; "
                f'install what it needs: pip install "hf_tasks[{extra}]"'
            )


def reporting_into(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe, telling MLflow in a database in this folder instead of where it says.

    It tells nothing where the environment names a run to log into, which such a database lacks.
    """
    if recipe.report.mlflow is None:
        return recipe
    if {"MLFLOW_RUN_ID", "MLFLOW_PARENT_RUN_ID"} & os.environ.keys():
        return replace(recipe, report=recipe.report.model_copy(update={"mlflow": None}))
    mlflow = recipe.report.mlflow.model_copy(
        update={"tracking_uri": f"sqlite:///{folder.resolve()}/mlflow.db"}
    )
    return replace(recipe, report=recipe.report.model_copy(update={"mlflow": mlflow}))


class Trackers:
    """A context: nothing happens before `follow`, and leaving it by an error closes the run as failed."""

    def __init__(self, artifacts: Artifacts, recipe: Recipe, *, say: Callable[[str], None]) -> None:
        """Args: artifacts: of the run; recipe: its recipe; say: told what could not be sent."""
        self._artifacts = artifacts
        self._recipe = recipe
        self._say = say
        self._open = ExitStack()
        self._mlflow: MLflowTracker | None = None

    def __enter__(self) -> "Trackers":
        """Nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what follow has opened."""
        self._open.__exit__(kind, error, trace)

    def follow(
        self,
        trainer: Trainer,
        task: Task,
        *,
        training_defaults: Mapping[str, Any],
        checkpoint: Path | None,
    ) -> None:
        """Start to tell of a training; only the first process does.

        Args:
            trainer: about to train; it gets the callbacks.
            task: what it is trained for.
            training_defaults: TrainingArguments that the task sets where the recipe does not.
            checkpoint: what the training goes on from, if it does.
        """
        if not trainer.is_world_process_zero():
            return
        if self._recipe.report.tensorboard:
            from hf_tasks.callbacks.tensorboard import open_writer

            resumed_step = None if checkpoint is None else step_of(checkpoint)
            writer = open_writer(self._artifacts.logs, resumed_step=resumed_step)
            trainer.add_callback(TensorBoardCallback(writer))
        if self._recipe.report.mlflow is not None:
            tracker = MLflowTracker(
                self._artifacts.tracking,
                tracking_uri=tracking_uri(self._artifacts.folder, self._recipe.report.mlflow.tracking_uri),
                experiment=self._recipe.report.mlflow.experiment,
                run_name=self._artifacts.folder.resolve().name,
                say=self._say,
                class_figures=partial(task.class_figures, trainer),
            )
            self._mlflow = self._open.enter_context(tracker)
            params = recipe_params(self._recipe, training_defaults)
            tracker.log_params({**params, **flatten({"run": self._facts()})})
            trainer.add_callback(tracker)

    def log_results(self, predictions: Predictions, *, step: int) -> None:
        """Tell of the best model, and the step it is of, once all artifacts are written."""
        if self._recipe.report.tensorboard:
            from hf_tasks.callbacks.tensorboard import open_writer, write_answers

            wrong_images = self._recipe.report.wrong_images
            with open_writer(self._artifacts.logs, resumed_step=None) as writer:
                write_answers(
                    writer, predictions.answers, predictions.metrics, step=step, wrong_images=wrong_images
                )
        if self._mlflow is not None:
            self._log_to_mlflow(self._mlflow, predictions, step)

    def _log_to_mlflow(self, tracker: MLflowTracker, predictions: Predictions, step: int) -> None:
        assert self._recipe.report.mlflow is not None
        single = {
            f"best/{name}": float(value)
            for name, value in predictions.metrics.items()
            if isinstance(value, int | float)
        }
        per_class = class_metrics(predictions.metrics.get("per_class", {}), "best")
        tracker.log_metrics({**single, **per_class}, step)
        wrong_pictures = self._artifacts.tracking / "wrong_pictures"
        if isinstance(predictions.answers, ClassificationAnswers):
            shutil.rmtree(wrong_pictures, ignore_errors=True)
            save_wrong(predictions.answers, wrong_pictures, limit=self._recipe.report.wrong_images)
        for path in self._files():
            tracker.log_artifact(path)
        tracker.log_artifacts(self._artifacts.exports, "export")
        tracker.log_artifacts(wrong_pictures, "wrong_pictures")
        register_as = self._recipe.report.mlflow.register_as
        tracker.log_model(self._artifacts.model, task=self._recipe.task, register_as=register_as)

    def _files(self) -> list[Path]:
        run = self._artifacts
        names = [run.recipe, run.data, run.environment, run.metrics, run.predictions, run.report, run.card]
        table = run.predictions.with_suffix(".parquet")
        return [path for path in (*names, table, *_augmentation_files(self._recipe)) if path.is_file()]

    def _facts(self) -> dict[str, Any]:
        """Versions, device and what the rows were; not where they came from, which may be secret."""
        facts = read_json(self._artifacts.data)
        counts = {name: part["rows"] for name, part in facts.items() if _has_rows(part)}
        return {
            **read_json(self._artifacts.environment),
            "data_fingerprint": facts.get("fingerprint"),
            "classes": len(facts.get("classes", ())),
            "rows": counts,
        }


def tracking_uri(run_folder: Path, uri: str | None) -> str:
    """The recipe's address, that of MLFLOW_TRACKING_URI, or an SQLite file beside the run."""
    database = run_folder.resolve().parent / "mlflow.db"
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database}"


def resend(run_folder: Path, *, say: Callable[[str], None]) -> None:
    """Send MLflow what it has not had of a run, finished or not, however long it takes.

    Args:
        run_folder: what `train` has written.
        say: told how it went.

    Raises:
        UserError: no run, one that does not report to MLflow, or the extra is not installed.
    """
    artifacts = Artifacts(run_folder)
    files = TrackingFiles(artifacts.tracking)
    recipe = load_recipe(artifacts.recipe) if artifacts.recipe.is_file() else None
    if recipe is None or recipe.report.mlflow is None or not files.journal.is_file():
        raise UserError(f"{run_folder}: nothing to send; wanted a run whose recipe has report.mlflow")
    require_trackers(recipe)
    unsent = files.count_unsent()
    sender = SenderProcess(files, tracking_uri(run_folder, recipe.report.mlflow.tracking_uri))
    sender.start()
    if sender.finish(None, say):
        say(f"MLflow: {unsent} records sent, none left")


def recipe_params(recipe: Recipe, training_defaults: Mapping[str, Any]) -> dict[str, str]:
    """What a recipe says and leaves open, flat; references stay as written, for they may hold secrets."""
    written = flatten(yaml.safe_load(recipe.text))
    references = [f"{key}." for key, text in written.items() if "${" in text]
    open_ones = flatten({**recipe.settings.model_dump(mode="json"), "training": training_defaults})
    return {
        key: text
        for key, text in {**open_ones, **written}.items()
        if text != "null" and not key.startswith(tuple(references))
    }


def _has_rows(part: Any) -> bool:
    return isinstance(part, Mapping) and "rows" in part


def _augmentation_files(recipe: Recipe) -> list[Path]:
    """The file of the recipe's augmentation, the user's or one of ours; none for tasks without."""
    name = recipe.settings.model_dump().get("augmentation", "none")
    ours = Path(str(package_files("hf_tasks.images"))) / "augmentations" / f"{name}.yaml"
    return [path for path in (Path(name), ours) if path.is_file()][:1]
