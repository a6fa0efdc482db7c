import csv
import json
import math
import re
import sys

import pytest
from conftest import run_program
from filelock import FileLock
from rich.console import Console
from transformers import pipeline as pipe

mlflow = pytest.importorskip("mlflow")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from hf_tasks import workflow  # noqa: E402
from hf_tasks.callbacks.journal import TrackingFiles, read_events  # noqa: E402
from hf_tasks.data.samples import SAMPLES  # noqa: E402
from hf_tasks.errors import UserError  # noqa: E402
from hf_tasks.recipe import load_recipe  # noqa: E402
from hf_tasks.workflow import output  # noqa: E402
from hf_tasks.workflow.tracking import resend  # noqa: E402

pytestmark = pytest.mark.slow

RECIPE = """
task: image-classification
output: {folder}/run
data:
  train: {{table: {folder}/digits/train_metadata.csv}}
  validation: {{table: {folder}/digits/test_metadata.csv}}
model: {{name: resnet10t, pretrained: false, image_size: 32}}
training:
  num_train_epochs: 2
  learning_rate: 2.0e-3
  logging_steps: 1
  dataloader_num_workers: 0
  metric_for_best_model: loss
  greater_is_better: true
report:
  mlflow: {{experiment: digits, tracking_uri: "${{oc.env:TRACKER}}", register_as: digits}}
  tensorboard: true
export: [torchscript]
"""


@pytest.fixture(scope="module")
def unreachable_run(tmp_path_factory):
    """A training whose tracker is away from beginning to end."""
    folder = tmp_path_factory.mktemp("run")
    SAMPLES["digits"](folder / "digits")
    for name, rows in (("train", 128), ("test", 64)):
        table = folder / "digits" / f"{name}_metadata.csv"
        table.write_text("".join(table.read_text().splitlines(keepends=True)[: rows + 1]))
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(folder=folder))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRACKER", "http://127.0.0.1:9")
        return workflow.run(load_recipe(recipe), console=Console(quiet=True))


@pytest.fixture(scope="module")
def undisturbed_run(unreachable_run, server):
    """The same training, whose tracker answers."""
    folder = unreachable_run.folder.parent
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRACKER", server.url)
        recipe = load_recipe(folder / "recipe.yaml", [f"output={folder}/undisturbed"])
        return workflow.run(recipe, console=Console(quiet=True))


def test_a_run_whose_tracker_was_away_is_all_there_after_resending(unreachable_run, server, monkeypatch):
    monkeypatch.setenv("TRACKER", server.url)
    files = TrackingFiles(unreachable_run.tracking)
    unsent = files.count_unsent()

    sent = run_program("report", unreachable_run.folder, "--resend", folder=unreachable_run.folder)

    events = list(read_events(files.journal))
    logged = {
        (key, event.content["step"], event.time): float(value)
        for event in events
        if event.kind == "metrics"
        for key, value in event.content["values"].items()
    }
    run = server.run_of(files)
    stored = {
        (key, point.step, point.timestamp): point.value
        for key in run.data.metrics
        for point in server.client.get_metric_history(run.info.run_id, key)
    }
    assert sent.stdout == f"MLflow: {unsent} records sent, none left\n"
    assert unsent == len(events)
    assert files.count_unsent() == 0
    assert stored == logged
    assert [key[1] for key in sorted(stored) if key[0] == "eval/accuracy"] == [4, 8]
    assert [key[1] for key in sorted(stored) if key[0] == "train/loss"] == list(range(1, 9))
    assert [key[1] for key in sorted(stored) if key[0] == "eval/class/7/f1"] == [4, 8]
    assert {"train/learning_rate", "train/samples_per_second", "best/class/7/recall"} <= {
        key[0] for key in stored
    }
    assert run.info.status == "FINISHED"


def test_a_resent_run_has_all_that_an_undisturbed_one_has(
    unreachable_run, undisturbed_run, server, monkeypatch
):
    monkeypatch.setenv("TRACKER", server.url)
    resend(unreachable_run.folder, say=lambda text: None)

    resent, undisturbed = (
        _stored(server, TrackingFiles(run.tracking)) for run in (unreachable_run, undisturbed_run)
    )

    assert resent["points"].keys() == undisturbed["points"].keys()
    for (key, step), value in undisturbed["points"].items():
        if not key.endswith(("runtime", "per_second", "preparation_time")):
            assert resent["points"][key, step] == pytest.approx(value, abs=1e-6), key
    assert resent["params"] == undisturbed["params"]
    assert resent["files"] == undisturbed["files"]
    assert {"export/parity.json", "report.html", "metrics.json", "model/MLmodel"} <= resent["files"]


def _stored(server, files):
    """All that the server has of a run."""
    run = server.run_of(files)
    points = {
        (key, point.step): point.value
        for key in run.data.metrics
        for point in server.client.get_metric_history(run.info.run_id, key)
    }
    params = {key: text for key, text in run.data.params.items() if key != "output"}
    return {"points": points, "params": params, "files": set(_artifacts(server, run.info.run_id))}


def _artifacts(server, run_id, folder=None):
    for info in server.client.list_artifacts(run_id, folder):
        if info.is_dir:
            yield from _artifacts(server, run_id, info.path)
        else:
            yield info.path


def test_a_run_shows_its_recipe_its_files_and_a_model_that_loads(unreachable_run, server, monkeypatch):
    run = server.run_of(TrackingFiles(unreachable_run.tracking))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    mlflow.set_tracking_uri(server.url)
    picture = next((unreachable_run.folder.parent / "digits").rglob("*.png"))

    model = mlflow.pyfunc.load_model("models:/digits/1")
    answer = model.predict([str(picture)])
    pipeline = mlflow.transformers.load_model(f"runs:/{run.info.run_id}/model")

    own = pipe("image-classification", model=str(unreachable_run.model))(str(picture))
    assert answer.iloc[0, 0] == pytest.approx(own[0])
    assert pipeline(str(picture))[0] == pytest.approx(own[0])
    params = run.data.params
    assert (params["model.name"], params["training.learning_rate"]) == ("resnet10t", "0.002")
    assert params["report.mlflow.tracking_uri"] == "${oc.env:TRACKER}"
    assert params["augmentation"] == "light"
    assert len(params["run.data_fingerprint"]) == 64
    assert params["run.rows.train"] == "128"
    files = {info.path for info in server.client.list_artifacts(run.info.run_id)}
    assert {
        "recipe.yaml",
        "light.yaml",
        "metrics.json",
        "predictions.csv",
        "wrong_pictures",
        "model",
    } <= files
    wrong = [
        info.path
        for folder in server.client.list_artifacts(run.info.run_id, "wrong_pictures")
        for info in server.client.list_artifacts(run.info.run_id, folder.path)
    ]
    assert wrong
    assert all(re.fullmatch(r"wrong_pictures/(\d)/\d_\1_[01]\.\d{4}(_\d)?\.png", path) for path in wrong)


def test_the_predictions_are_those_of_the_best_model_and_not_of_the_last(unreachable_run):
    metrics = json.loads(unreachable_run.metrics.read_text())
    best_step = metrics["training"]["best_step"]
    checkpoint = unreachable_run.checkpoints / f"checkpoint-{best_step}"
    with unreachable_run.predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))

    digits = unreachable_run.folder.parent / "digits"
    answers = pipe("image-classification", model=str(checkpoint))([str(digits / row["path"]) for row in rows])

    assert best_step == 4
    assert metrics["training"]["steps"] == 8
    assert [row["predicted"] for row in rows] == [answer[0]["label"] for answer in answers]
    assert [float(row["probability"]) for row in rows] == pytest.approx(
        [answer[0]["score"] for answer in answers], abs=1e-4
    )


def test_tensorboard_has_the_scalars_of_training_and_the_pictures_of_the_best_model(unreachable_run):
    events = EventAccumulator(str(unreachable_run.logs), size_guidance={"images": 0, "scalars": 0}).Reload()

    assert [scalar.step for scalar in events.Scalars("eval/accuracy")] == [4, 8]
    assert [scalar.step for scalar in events.Scalars("train/loss")] == list(range(1, 9))
    assert {"wrong_pictures", "confusion_matrix", "f1_per_class"} == set(events.Tags()["images"])
    assert {picture.step for picture in events.Images("confusion_matrix")} == {4}


def test_a_training_that_fails_in_the_middle_ends_its_mlflow_run_as_failed(unreachable_run, server):
    folder = unreachable_run.folder.parent
    overrides = [f"output={folder}/diverged", "training.learning_rate=1e20", "report.tensorboard=false"]
    tracker = f"report.mlflow={{experiment: digits, tracking_uri: '{server.url}'}}"

    done = run_program("train", folder / "recipe.yaml", *overrides, tracker, folder=folder)

    assert done.returncode == 2, done.stderr
    assert "the loss is" in done.stderr
    run = server.run_of(TrackingFiles(folder / "diverged/tracking"))
    losses = server.client.get_metric_history(run.info.run_id, "train/loss")
    assert run.info.status == "FAILED"
    assert float(run.data.params["training.learning_rate"]) == 1e20
    assert [point.step for point in losses] == [1]
    assert math.isfinite(losses[0].value)


def test_two_trainings_do_not_write_to_one_folder(unreachable_run, monkeypatch):
    monkeypatch.setenv("TRACKER", "http://127.0.0.1:9")
    monkeypatch.setattr(output, "WAIT_SECONDS", 0.1)
    recipe = load_recipe(unreachable_run.recipe)

    with FileLock(unreachable_run.folder.with_name(".run.lock")):
        for way in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(UserError, match=r"output: another training is writing to .*run; wait for"):
                workflow.run(recipe, console=Console(quiet=True), **way)

    assert unreachable_run.report.is_file()


def test_a_run_that_mlflow_is_not_told_of_has_nothing_to_send(unreachable_run, tmp_path):
    (tmp_path / "recipe.yaml").write_text(unreachable_run.recipe.read_text().split("report:")[0])

    with pytest.raises(UserError, match=r"nothing to send; wanted a run whose recipe has report\.mlflow"):
        resend(tmp_path, say=print)


@pytest.mark.parametrize(
    ("package", "section", "extra"),
    [("mlflow", "mlflow: {experiment: x}", "mlflow"), ("matplotlib", "tensorboard: true", "tensorboard")],
)
def test_a_tracker_that_is_not_installed_is_told_at_once(tmp_path, monkeypatch, package, section, extra):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(folder=tmp_path).split("report:")[0] + f"report: {{{section}}}\n")
    monkeypatch.setitem(sys.modules, package, None)

    for start in (workflow.run, workflow.check):
        with pytest.raises(UserError, match=rf'report\.{extra}: .*pip install "hf_tasks\[{extra}\]"'):
            start(load_recipe(recipe))
