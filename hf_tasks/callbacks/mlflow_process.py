"""Starts and ends the process that sends a journal to MLflow."""

import os
import subprocess
import sys
from collections.abc import Callable

from hf_tasks.callbacks.journal import TrackingFiles

LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
"""Left to itself MLflow waits two minutes for an answer, eight times; the journal retries on its own."""


class SenderProcess:
    """mlflow_sender in a process of its own; one that a dying training leaves behind ends by itself."""

    def __init__(self, files: TrackingFiles, tracking_uri: str) -> None:
        """Args: files: the tracking folder; tracking_uri: where to, which may hold a password."""
        self._files = files
        self._environment = {
            **LIMITS,
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_TRACKING_URI": tracking_uri,
        }

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C ends the training alone."""
        with self._files.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hf_tasks.callbacks.mlflow_sender", str(self._files.folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def finish(self, seconds: float | None, say: Callable[[str], None]) -> bool:
        """Let it send what is left, wait so long, and tell of what could not be sent yet; True if all was."""
        try:
            self._process.communicate(b"end\n", seconds)
        except subprocess.TimeoutExpired:
            say(f"MLflow: still being sent in the background; {self._files.log} says how it goes")
            return False
        unsent = self._files.count_unsent()
        if unsent or self._process.returncode:
            say(
                f"MLflow: {unsent} records are not sent yet, see {self._files.log}; they are kept, "
                f"send them with: hf-tasks report {self._files.folder.parent} --resend"
            )
        if self._files.refused.is_file():
            say(f"MLflow: the server refused some records, {self._files.refused} says why")
        return not unsent and self._process.returncode == 0
