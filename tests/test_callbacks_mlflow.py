import json
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest
from faulty_proxy import FaultyProxy
from filelock import FileLock, Timeout

mlflow = pytest.importorskip("mlflow")

from mlflow.exceptions import MlflowException  # noqa: E402

from hf_tasks.callbacks import mlflow_sender  # noqa: E402
from hf_tasks.callbacks.journal import Journal, TrackingFiles  # noqa: E402
from hf_tasks.callbacks.mlflow_sender import connect, follow, send_pending  # noqa: E402

pytestmark = pytest.mark.slow

DYING = """
import os, signal
from pathlib import Path
from hf_tasks.callbacks.mlflow import MLflowTracker

tracker = MLflowTracker(
    Path("{folder}"), tracking_uri="{uri}", experiment="tests", run_name="dying", say=print
)
with tracker:
    tracker.log_metrics({{"train/loss": 0.5}}, step=1)
    if "{death}" == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise {{"exception": RuntimeError, "Ctrl-C": KeyboardInterrupt}}["{death}"]("the end")
"""


@pytest.fixture
def proxy(server):
    with FaultyProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def files(tmp_path, proxy, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    return TrackingFiles(tmp_path / "tracking")


def open_journal(files, key, *, run_id=None, parent_run_id=None):
    journal = Journal(files.journal)
    start = {"experiment": "tests", "run_name": key, "key": key, "run_id": run_id}
    start["parent_run_id"] = parent_run_id
    journal.append("start", start)
    return journal


def append_points(journal, steps):
    for step in steps:
        journal.append(
            "metrics", {"step": step, "values": {"train/loss": 1 / (step + 1), "epoch": step / 10}}
        )


def runs_called(server, name):
    experiment = server.client.get_experiment_by_name("tests")
    return server.client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")


@pytest.mark.parametrize("fault", ["error", "hang", "lose", "gateway", "busy", "login", "cut"])
def test_faults_at_any_request_lose_nothing_and_send_nothing_twice(server, proxy, files, fault):
    journal = open_journal(files, f"fault-{fault}")
    append_points(journal, range(3))
    journal.append("params", {"values": {"training.learning_rate": "0.1"}})
    append_points(journal, range(3, 6))
    journal.append("status", {"status": "FINISHED"})
    faulty = {1, 3, 6, 10, 15, 21, 28}  # growing gaps: the fault hits each request of an event in turn
    proxy.mode = lambda number: fault if number in faulty else "pass"
    run, faults = connect(files), 0

    while files.count_unsent():
        try:
            send_pending(files, run, has_ended=False)
        except (MlflowException, OSError):
            faults += 1

    assert faults >= 5
    assert server.steps_of(files) == Counter(range(6))
    assert server.steps_of(files, "epoch") == Counter(range(6))
    assert server.run_of(files).data.params == {"training.learning_rate": "0.1"}
    assert server.run_of(files).info.status == "FINISHED"
    assert len(runs_called(server, f"fault-{fault}")) == 1


def test_an_answer_of_nothing_is_no_run(server, proxy, files):
    append_points(open_journal(files, "empty"), range(2))
    proxy.mode = lambda number: "empty" if number in {1, 4} else "pass"  # the experiment, then the run
    run = connect(files)

    with pytest.raises(MlflowException, match="the server's answer is empty"):
        send_pending(files, run, has_ended=False)
    with suppress(MlflowException):  # of a new experiment the fourth request is another
        send_pending(files, run, has_ended=False)
    send_pending(files, run, has_ended=False)

    assert server.steps_of(files) == Counter(range(2))
    assert len(runs_called(server, "empty")) == 1


def test_an_error_of_a_stores_own_ends_nothing(server, files, monkeypatch):
    journal = open_journal(files, "store")
    (files.folder / "file.txt").write_text("content")
    journal.append("artifact", {"path": "file.txt", "to": ""})
    append_points(journal, range(2))
    store, attempts, has_ended = mlflow.MlflowClient.log_artifact, [], threading.Event()

    def fail_twice(*arguments):
        attempts.append(arguments)
        if len(attempts) < 3:
            raise type("S3UploadFailedError", (Exception,), {})("no credentials")
        store(*arguments)

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", fail_twice)
    monkeypatch.setattr(mlflow_sender, "POLL_SECONDS", 0.01)
    has_ended.set()

    is_all_sent = follow(files, connect(files), has_ended)

    assert is_all_sent
    assert len(attempts) == 3
    run = server.run_of(files)
    assert [info.path for info in server.client.list_artifacts(run.info.run_id)] == ["file.txt"]
    assert server.steps_of(files) == Counter(range(2))


def test_processes_make_the_tables_of_a_database_file_in_turn(files, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")

    def open_alone(uri):
        with pytest.raises(Timeout):
            FileLock(tmp_path / ".mlflow.db.lock").acquire(timeout=0)
        raise MlflowException(f"opened {uri}")

    monkeypatch.setattr(mlflow_sender, "MlflowClient", open_alone)
    open_journal(files, "tables")

    with pytest.raises(MlflowException, match=f"opened sqlite:///{tmp_path}/mlflow.db"):
        send_pending(files, connect(files), has_ended=False)


def test_a_process_that_still_sends_leaves_alone_what_has_taken_the_place_of_its_run(
    server, proxy, files, tmp_path
):
    append_points(open_journal(files, "replaced"), range(2))
    proxy.mode = lambda number: "hang" if number == 4 else "pass"
    has_ended = threading.Event()
    has_ended.set()
    sender = threading.Thread(target=follow, args=(files, connect(files), has_ended))
    sender.start()
    wait_until(lambda: proxy.requests >= 4)

    files.folder.rename(tmp_path / "aside")
    append_points(open_journal(files, "replacing"), range(2))
    proxy.released.set()
    sender.join(60)

    assert not sender.is_alive()
    assert {path.name for path in files.folder.iterdir()} == {"journal.jsonl"}
    send_pending(files, connect(files), has_ended=False)
    assert server.steps_of(files) == Counter(range(2))
    assert len(runs_called(server, "replacing")) == 1


def test_points_wait_for_a_stopped_server_and_arrive_once_it_is_back(server, files, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    journal, has_ended = open_journal(files, "restart"), threading.Event()
    append_points(journal, range(3))
    sender = threading.Thread(target=follow, args=(files, connect(files), has_ended))
    sender.start()
    wait_until(lambda: files.count_unsent() == 0)

    server.stop()
    append_points(journal, range(3, 6))
    time.sleep(2)
    unsent = files.count_unsent()
    server.start()
    append_points(journal, range(6, 9))
    journal.append("status", {"status": "FINISHED"})
    has_ended.set()
    sender.join(60)

    assert unsent == 3
    assert server.steps_of(files) == Counter(range(9))
    assert server.run_of(files).info.status == "FINISHED"


def test_a_training_that_ends_without_a_word_is_closed_as_failed(server, files):
    journal = open_journal(files, "killed")
    append_points(journal, range(2))

    send_pending(files, connect(files), has_ended=True)

    assert server.run_of(files).info.status == "FAILED"


def test_a_resumed_training_continues_its_run(server, files):
    for is_resumed in (False, True):
        journal = open_journal(files, "resumed")
        journal.append("params", {"values": {"epochs": "2" if is_resumed else "1", "seed": "0"}})
        append_points(journal, [int(is_resumed)])
        journal.close()
        send_pending(files, connect(files), has_ended=not is_resumed)

    run = server.run_of(files)
    assert run.info.status == "RUNNING"
    assert run.data.params == {"epochs": "1", "seed": "0"}
    assert run.data.tags["resumed.epochs"] == "2"
    assert server.steps_of(files) == Counter([0, 1])
    assert len(runs_called(server, "resumed")) == 1


def test_a_run_may_be_nested_in_another_or_go_on_with_it(server, files, tmp_path):
    open_journal(files, "parent")
    send_pending(files, connect(files), has_ended=False)
    parent = server.run_of(files).info.run_id
    nested, attached = TrackingFiles(tmp_path / "nested"), TrackingFiles(tmp_path / "attached")

    open_journal(nested, "nested", parent_run_id=parent)
    send_pending(nested, connect(nested), has_ended=False)
    append_points(open_journal(attached, "attached", run_id=parent), [5])
    send_pending(attached, connect(attached), has_ended=True)

    assert server.run_of(nested).data.tags["mlflow.parentRunId"] == parent
    assert server.run_of(nested).info.run_id != parent
    assert server.run_of(attached).info.run_id == parent
    assert server.steps_of(files) == Counter([5])


def test_what_the_server_refuses_is_set_aside_and_the_rest_goes_on(server, files):
    journal = open_journal(files, "refused")
    journal.append("metrics", {"step": 0, "values": {"a//../b": 1.0}})
    append_points(journal, range(2))
    journal.append("artifact", {"path": "gone.json", "to": ""})
    journal.append("params", {"values": {"long": "x" * 9000}})

    send_pending(files, connect(files), has_ended=False)

    refused = [json.loads(line) for line in files.refused.read_text().splitlines()]
    assert [line["number"] for line in refused] == [1, 4]
    assert "no longer there" in refused[1]["reason"]
    assert server.steps_of(files) == Counter([0, 1])
    assert server.run_of(files).data.params["long"] == "x" * 6000


def test_a_file_too_large_for_the_server_does_not_hold_up_the_rest(server, proxy, files):
    journal = open_journal(files, "large")
    (files.folder / "large.bin").write_bytes(b"large")
    journal.append("artifact", {"path": "large.bin", "to": ""})
    append_points(journal, range(2))
    proxy.mode = lambda number: "large"

    send_pending(files, connect(files), has_ended=False)

    assert "413" in json.loads(files.refused.read_text())["reason"]
    assert server.steps_of(files) == Counter(range(2))


def test_values_that_are_no_numbers_arrive_as_such(server, files):
    journal = open_journal(files, "nan")
    journal.append("metrics", {"step": 0, "values": {"nan": "nan", "inf": "inf"}})

    send_pending(files, connect(files), has_ended=False)

    metrics = server.run_of(files).data.metrics
    assert metrics["nan"] != metrics["nan"]
    assert metrics["inf"] > 1e308  # MLflow keeps infinity as the largest double


@pytest.mark.parametrize(
    ("death", "status"), [("kill", "FAILED"), ("exception", "FAILED"), ("Ctrl-C", "KILLED")]
)
def test_the_run_of_a_training_that_dies_is_closed(server, tmp_path, death, status):
    script = tmp_path / "train.py"
    script.write_text(DYING.format(folder=tmp_path / "tracking", uri=server.url, death=death))

    subprocess.run([sys.executable, str(script)], check=False, stderr=subprocess.DEVNULL, timeout=120)

    files = TrackingFiles(tmp_path / "tracking")
    wait_until(lambda: files.identity.exists() and server.run_of(files).info.status == status)
    assert server.steps_of(files) == Counter([1])


def wait_until(is_so, seconds=30):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)
