"""One MLflow run on a server; every call may be repeated without a second effect."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import (
    MAX_METRICS_PER_BATCH,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
    MAX_TAG_VAL_LENGTH,
)

from hf_tasks.callbacks.mlflow_model import build_mlflow_model
from hf_tasks.files import write_text

KEY_TAG = "hf_tasks.run"
PARENT_TAG = "mlflow.parentRunId"


class ServerRun:
    """The MLflow run of a run folder, which is found again by the id that the folder keeps.

    All methods raise MlflowException or OSError when the server is away or refuses, and whatever the store of
    its artifacts raises. As MLflow has it, an answer of 200 without a body is a yes.
    """

    def __init__(
        self, open_client: Callable[[], MlflowClient], identity: Path, artifact_location: str | None
    ) -> None:
        """Contact nobody yet.

        Args:
            open_client: of the tracking server, once it is needed; a database gets its tables then.
            identity: file that keeps the id of the MLflow run.
            artifact_location: where a new experiment keeps its files; None leaves that to the server.
        """
        self._open_client = open_client
        self._identity = identity
        self._artifact_location = artifact_location

    @cached_property
    def _client(self) -> MlflowClient:
        return self._open_client()

    @property
    def run_id(self) -> str:
        """The MLflow run's id, once `start` has been sent."""
        run_id: str = json.loads(self._identity.read_text("utf-8"))["run_id"]
        return run_id

    def start(self, content: Mapping[str, Any], time: int) -> None:
        """Create the run, or set it running again.

        Args:
            content: `key` (a text no other run has), `experiment`, `run_name`, `run_id` (an existing run to
                go on with, or None), `parent_run_id` (or None).
            time: milliseconds since 1970.
        """
        if not self._identity.is_file():
            write_text(self._identity, json.dumps(self._identify(content, time)) + "\n")
        self._client.update_run(self.run_id, status="RUNNING")

    def log_metrics(self, points: Sequence[Metric], *, is_in_doubt: bool) -> None:
        """Send points, a thousand at a time; those in doubt only if the server does not have them."""
        if is_in_doubt:
            known = {
                (key, point.timestamp, point.step)
                for key in {point.key for point in points}
                for point in self._client.get_metric_history(self.run_id, key)
            }
            points = [point for point in points if (point.key, point.timestamp, point.step) not in known]
        for first in range(0, len(points), MAX_METRICS_PER_BATCH):
            self._client.log_batch(self.run_id, metrics=points[first : first + MAX_METRICS_PER_BATCH])

    def log_params(self, values: Mapping[str, str]) -> None:
        """Send parameters, cut to what MLflow takes.

        MLflow never changes a parameter: one that differs in a resumed run becomes a tag `resumed.NAME`.
        """
        known = self._client.get_run(self.run_id).data.params
        cut = {key: text[:MAX_PARAM_VAL_LENGTH] for key, text in values.items()}
        new = [Param(key, text) for key, text in cut.items() if key not in known]
        for first in range(0, len(new), MAX_PARAMS_TAGS_PER_BATCH):
            self._client.log_batch(self.run_id, params=new[first : first + MAX_PARAMS_TAGS_PER_BATCH])
        self.log_tags({f"resumed.{key}": text for key, text in cut.items() if known.get(key, text) != text})

    def log_tags(self, values: Mapping[str, str]) -> None:
        """Set tags, cut to what MLflow takes."""
        tags = [RunTag(key, text[:MAX_TAG_VAL_LENGTH]) for key, text in values.items()]
        for first in range(0, len(tags), MAX_PARAMS_TAGS_PER_BATCH):
            self._client.log_batch(self.run_id, tags=tags[first : first + MAX_PARAMS_TAGS_PER_BATCH])

    def log_artifact(self, path: Path, to: str) -> None:
        """Send a file into a folder of the run, in place of one of the same name."""
        self._client.log_artifact(self.run_id, str(path), to or None)

    def log_model(self, folder: Path, *, task: str, register_as: str | None) -> None:
        """Send a saved model as `model`, which MLflow loads, and register it where that is wanted."""
        with TemporaryDirectory(dir=self._identity.parent, prefix="model-") as aside:
            built = build_mlflow_model(folder, Path(aside) / "model", task=task)
            self._client.log_artifacts(self.run_id, str(built), "model")
        if register_as is not None:
            self._register(register_as)

    def set_status(self, status: str, time: int) -> None:
        """Close the run as FINISHED, FAILED or KILLED at a time in milliseconds since 1970."""
        self._client.set_terminated(self.run_id, status, time)
        self._remove_twins()

    def _identify(self, content: Mapping[str, Any], time: int) -> dict[str, str | None]:
        if content["run_id"] is not None:
            return {"run_id": content["run_id"], "experiment_id": None, "key": content["key"]}
        experiment_id = self._experiment(content["experiment"])
        known = self._runs_of_key(experiment_id, content["key"])
        run_id = known[0] if known else self._create(experiment_id, content, time)
        return {"run_id": run_id, "experiment_id": experiment_id, "key": content["key"]}

    def _experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return _named(experiment.experiment_id)
        return _named(self._client.create_experiment(name, self._artifact_location))

    def _create(self, experiment_id: str, content: Mapping[str, Any], time: int) -> str:
        tags = {KEY_TAG: content["key"]}
        if content["parent_run_id"] is not None:
            tags[PARENT_TAG] = content["parent_run_id"]
        run = self._client.create_run(experiment_id, time, tags, content["run_name"])
        return _named(run.info.run_id)

    def _runs_of_key(self, experiment_id: str, key: str) -> list[str]:
        found = self._client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'")
        return [run.info.run_id for run in found]

    def _remove_twins(self) -> None:
        """Delete a run that the server made after all, of a request that had been given up."""
        identity = json.loads(self._identity.read_text("utf-8"))
        if identity["experiment_id"] is None:  # a run that others have made
            return
        for run_id in self._runs_of_key(identity["experiment_id"], identity["key"]):
            if run_id != identity["run_id"]:
                self._client.delete_run(run_id)

    def _register(self, name: str) -> None:
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = self._client.search_model_versions(f"name='{name}'")
        if all(version.run_id != self.run_id for version in versions):
            self._client.create_model_version(name, f"runs:/{self.run_id}/model", self.run_id)


def _named(identity: str) -> str:
    """The id in an answer; MLflow reads an empty answer, such as a broken proxy gives, as an empty id."""
    if not identity:
        raise MlflowException("the server's answer is empty")
    return identity
