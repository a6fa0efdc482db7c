"""A real `mlflow server` on loopback, for tests."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import mlflow

from hf_tasks.callbacks.journal import TrackingFiles


class Server:
    """SQLite behind it; may be stopped hard and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.folder, self.port = folder, port
        self.url = f"http://127.0.0.1:{port}"
        self.client = mlflow.MlflowClient(self.url)

    def start(self) -> None:
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        place = ["--artifacts-destination", str(self.folder / "artifacts"), "--port", str(self.port)]
        command = [sys.executable, "-m", "mlflow", "server", *store, *place, "--host", "127.0.0.1"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--workers", "1"],
                stdout=log,
                stderr=log,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                start_new_session=True,
            )
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "server.log").read_text())

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def run_of(self, files: TrackingFiles) -> mlflow.entities.Run:
        """The run that a tracking folder belongs to."""
        return self.client.get_run(json.loads(files.identity.read_text())["run_id"])

    def steps_of(self, files: TrackingFiles, key: str = "train/loss") -> Counter[int]:
        """How many points each step of a metric has."""
        run_id = self.run_of(files).info.run_id
        return Counter(point.step for point in self.client.get_metric_history(run_id, key))
