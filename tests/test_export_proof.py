"""Exports of a trained classifier: what is written, what the proof finds, what happens to files that fail."""

import csv
import errno
import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.datasets import load_sample_images
from transformers import AutoModelForImageClassification

from hf_tasks import workflow
from hf_tasks.errors import ExportError, UserError
from hf_tasks.export.choose import Budget
from hf_tasks.export.compare import choose_rows, compare_networks
from hf_tasks.export.files import ExportedFile, metadata_texts, require_formats, write_files
from hf_tasks.export.networks import open_network
from hf_tasks.export.onnx import has_weights_beside
from hf_tasks.export.parity import Parity, parts_of, read_records, sha256_of
from hf_tasks.export.produce import ExportOptions, export_run, try_formats
from hf_tasks.export.prove import prove_files
from hf_tasks.export.tolerance import refusal, tolerance_of
from hf_tasks.recipe import load_recipe
from hf_tasks.registry import load_task
from hf_tasks.workflow.exporting import export_saved
from hf_tasks.workflow.prediction import predict_files

FORMATS = ("onnx", "torchscript", "onnx-fp16", "onnx-int8")
ALL_FORMATS = (*FORMATS, "torchao-int8")
SILENT = Console(quiet=True)
PARTS = ("qdata", "scale")
CLASSES = ("blue", "green", "red")  # as their numbers

pytestmark = pytest.mark.slow


def draw_pictures(folder, *, count, seed):
    """Noise of odd sizes with a tint, so that wrong colours and wrong brightness both show."""
    rng = np.random.default_rng(seed)
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            height, width = rng.integers(33, 64, 2)
            pixels = 0.7 * rng.integers(0, 256, (height, width, 3))
            pixels[..., channel] += rng.uniform(8, 60)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number:03}.png")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run on tinted noise, with one export asked for in its recipe."""
    folder = tmp_path_factory.mktemp("tints")
    draw_pictures(folder / "train", count=60, seed=0)
    draw_pictures(folder / "validation", count=30, seed=1)
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"""
task: image-classification
output: {folder}/run
data: {{train: {{folder: {folder}/train}}, validation: {{folder: {folder}/validation}}}}
model: {{name: test_resnet, pretrained: false, image_size: 32}}
augmentation: none
training: {{num_train_epochs: 3, learning_rate: 3.0e-3, per_device_train_batch_size: 16, use_cpu: true}}
pruning: {{amount: 0.3}}
export: [onnx]
"""
    )
    return workflow.run(load_recipe(recipe), console=SILENT).folder


@pytest.fixture(scope="module")
def make_plan(run_folder):
    """Plans of the trained model, each with a model of its own."""
    recipe = load_recipe(run_folder / "recipe.yaml")
    task = load_task(recipe.task)
    splits = task.prepare(recipe.settings)
    return lambda: task.plan_export(recipe.settings, task.load_model(run_folder / "model"), splits)


@pytest.fixture(scope="module")
def exported(run_folder, make_plan):
    """Every format of the run, and the parity of it."""
    options = ExportOptions((*ALL_FORMATS, "triton"), budget=Budget(max_metric_loss=0.01))
    facts = {"recipe_fingerprint": "abc"}
    return export_run(make_plan(), options, run_folder / "export", run_folder=run_folder, facts=facts)


def wrong_mean(plan):
    steps = replace(plan.pictures.steps, mean=(0.485, 0.456, 0.406))
    return replace(plan, pictures=replace(plan.pictures, steps=steps))


class SwappedChannels(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, pixel_values):
        return self.model(pixel_values.flip(1))


class RoundedInput(SwappedChannels):
    def forward(self, pixel_values):
        return self.model(pixel_values.round())


def swapped_channels(plan):
    return replace(plan, model=SwappedChannels(plan.model))


def rounding_op(plan):
    return replace(plan, model=RoundedInput(plan.model))


def stale_head(plan):
    """The classifier of another moment: its rows belong to other classes."""
    head = plan.model.timm_model.get_classifier()
    with torch.no_grad():
        head.weight.copy_(head.weight.roll(1, 0))
    return plan


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("plant", [wrong_mean, swapped_channels, rounding_op, stale_head])
def test_a_planted_fault_is_caught(make_plan, tmp_path, format_name, plant):
    faulty = plant(make_plan())

    files = write_files(faulty, format_name, tmp_path, metadata={})
    records = prove_files(make_plan(), files, range(90), asked={})

    # The plain graph has no mean in it; a complete graph goes with the network that it holds.
    assert [record.passed for record in records] == [plant is wrong_mean, False]
    assert all(record.reason for record in records if not record.passed)


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_complete_graph_around_another_network_than_the_proved_one_is_caught(
    exported, run_folder, make_plan, tmp_path, format_name
):
    _, faulty = write_files(stale_head(make_plan()), format_name, tmp_path, metadata={})
    record = next(record for record in exported.records if record.format == format_name)
    healthy = ExportedFile(format_name, run_folder / record.file)

    plain, complete = prove_files(make_plan(), [healthy, faulty], range(0, 90, 3), asked={})

    assert plain.passed
    assert not complete.passed


def test_stale_weights_of_the_head_are_caught_in_torchao_whose_file_holds_weights_alone(make_plan, tmp_path):
    files = write_files(stale_head(make_plan()), "torchao-int8", tmp_path, metadata={})

    (record,) = prove_files(make_plan(), files, range(90), asked={})

    assert not record.passed
    assert record.reason


def test_torchao_keeps_a_quarter_of_the_weights_of_linear_layers(make_plan, tmp_path):
    plan = make_plan()
    head = plan.model.timm_model.get_classifier().weight.detach()

    write_files(plan, "torchao-int8", tmp_path, metadata={"hf_tasks.task": "x"})

    file = tmp_path / "torchao-int8/model.safetensors"
    stored = load_file(file)
    levels, scale = (stored[next(key for key in stored if key.endswith(f"weight_{part}"))] for part in PARTS)
    assert levels.dtype == torch.int8
    torch.testing.assert_close(levels * scale, head, atol=float(scale.max()) / 2 + 1e-7, rtol=0)
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata()["hf_tasks.task"] == "x"


def test_torchao_that_is_missing_is_named_with_the_way_to_get_it(make_plan):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_tasks.export.torchao.find_spec", lambda name: None)

        with pytest.raises(ExportError, match=r"install it with pip install 'hf_tasks\[torchao\]'"):
            require_formats(["torchao-int8"], refused={})


def test_torchao_refuses_a_model_without_linear_layers(make_plan, tmp_path):
    plan = make_plan()
    bare = replace(plan, model=torch.nn.Sequential(torch.nn.Flatten()))

    with pytest.raises(ExportError, match="quantises linear layers, and this model has none"):
        write_files(bare, "torchao-int8", tmp_path, metadata={})


@pytest.mark.parametrize("format_name", FORMATS)
def test_swapped_channels_before_the_network_are_caught(exported, run_folder, make_plan, format_name):
    plan = make_plan()
    load = plan.pictures.load
    swapped = replace(plan, pictures=replace(plan.pictures, load=lambda row: load(row)[..., ::-1]))
    paths = [run_folder / record.file for record in exported.records if f"/{format_name}/" in record.file]
    files = [ExportedFile(format_name, path, is_end_to_end="end_to_end" in path.name) for path in paths]

    plain, complete = prove_files(swapped, files, range(90), asked={})

    assert plain.passed
    assert not complete.passed


def test_training_exports_and_proves_what_the_recipe_names(run_folder):
    parity = json.loads((run_folder / "export" / "parity.json").read_text())
    metrics = json.loads((run_folder / "metrics.json").read_text())

    record = next(item for item in parity["formats"] if item["format"] == "onnx")

    assert record["passed"]
    assert record["metric"]["before"] == metrics["accuracy"]
    assert record["examples"] == parity["validation_rows"] == 90
    assert set(record["latency_ms"]) == {"batch_1", "batch_32"}
    assert record["bytes"] == (run_folder / record["file"]).stat().st_size
    assert metrics["sparsity"] == pytest.approx(0.3, abs=0.001)


def test_every_format_passes_on_a_pruned_model(exported):
    assert exported.failures == ()
    assert {record.format for record in exported.records} == {
        *ALL_FORMATS,
        *(f"{name}-end-to-end" for name in FORMATS),
        "triton",
    }


def test_the_fastest_of_equals_is_chosen(exported):
    plain = [record for record in exported.records if record.format in ALL_FORMATS]

    chosen = [record for record in exported.records if record.chosen]

    assert chosen == [min(plain, key=lambda record: record.latency_ms[1].median)]


def test_metadata_carries_classes_preparation_and_fingerprint(exported, run_folder):
    model = onnx.load(run_folder / "export/onnx/end_to_end.onnx")
    texts = {entry.key: entry.value for entry in model.metadata_props}

    assert json.loads(texts["hf_tasks.labels"]) == list(CLASSES)
    assert json.loads(texts["hf_tasks.preprocessing"])["crop"] == [32, 32]
    assert json.loads(texts["hf_tasks.temperature"]) == 1.0
    assert texts["hf_tasks.recipe_fingerprint"] == "abc"


def test_torchscript_carries_the_same_metadata(exported, run_folder, make_plan):
    network = open_network(run_folder / "export/torchscript/end_to_end.pt")

    wanted = metadata_texts(make_plan(), {"recipe_fingerprint": "abc"})

    assert {**wanted, "inputs": '["pictures"]'} == network.metadata


def test_weights_that_protobuf_cannot_hold_lie_beside_every_graph(make_plan, tmp_path, monkeypatch):
    pytest.importorskip("optimum.onnxruntime", reason="needs transformers < 4.58")
    monkeypatch.setenv("FORCE_ONNX_EXTERNAL_DATA", "1")  # Optimum does it by itself above 2 GiB
    options = ExportOptions(("onnx", "onnx-fp16", "onnx-int8", "triton"), sample=40)

    parity = export_run(make_plan(), options, tmp_path / "export", run_folder=tmp_path, facts={"task": "x"})

    assert parity.failures == ()
    assert len(parity.records) == 12
    for record in parity.records:
        file = tmp_path / record.file
        graph = onnx.load(file, load_external_data=False)
        assert has_weights_beside(graph)
        assert {"hf_tasks.task": "x"}.items() <= {(entry.key, entry.value) for entry in graph.metadata_props}
        open_network(file)  # finds them
        assert record.bytes == sum(part.stat().st_size for part in parts_of(tmp_path / record.file)) or (
            record.format == "triton"
        )


def test_a_format_that_cannot_be_made_hides_no_refusal_and_leaves_no_earlier_proof(
    exported, make_plan, tmp_path
):
    class Shaken(SwappedChannels):
        """Adds what a trace cannot repeat, and what a graph keeps as it was."""

        def forward(self, pixel_values):
            return self.model(pixel_values + np.random.default_rng().random())

    Parity(exported.records, of_rows=90).write(tmp_path / "export/parity.json")
    plan = make_plan()
    options = ExportOptions(("torchscript", "onnx"), sample=1)

    parity = export_run(
        replace(plan, model=Shaken(plan.model)), options, tmp_path / "export", run_folder=tmp_path, facts={}
    )

    kept = {item["format"]: item["passed"] for item in read_records(tmp_path / "export/parity.json")}
    assert "cannot be traced" in parity.impossible[0]
    assert [line.split(":")[0] for line in parity.failures] == ["onnx", "onnx-end-to-end"]
    assert not any(name.startswith("torchscript") for name in kept)
    assert (kept["onnx"], kept["onnx-int8"], kept["triton"]) == (False, True, True)


def test_an_export_replaces_the_one_before_it_and_leaves_nothing_else(make_plan, tmp_path):
    def files():
        return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())

    strict = ExportOptions(("torchscript", "triton"), sample=1, tolerance={"difference": 0.0})
    export_run(make_plan(), strict, tmp_path / "export", run_folder=tmp_path, facts={})
    refused = files()
    parity = export_run(
        make_plan(), replace(strict, tolerance={}), tmp_path / "export", run_folder=tmp_path, facts={}
    )

    assert refused == [
        "export/parity.json",
        "export/rejected/torchscript/end_to_end.pt",
        "export/rejected/torchscript/model.pt",
    ]
    assert {record.examples for record in parity.records} == {1}
    wanted = {*(record.file for record in parity.records), "export/parity.json"}
    assert {name for name in files() if "/triton/" not in name or name.endswith(".pt")} == wanted


def test_a_repository_that_cannot_be_written_leaves_the_earlier_one_and_every_proof(
    exported, run_folder, make_plan, tmp_path, monkeypatch
):
    def fill_disk(repository, *_):
        (repository / "half").mkdir(parents=True)
        raise OSError(errno.ENOSPC, "No space left on device")

    shutil.copytree(run_folder / "export", tmp_path / "export")
    earlier = {item["format"] for item in read_records(tmp_path / "export/parity.json")}
    monkeypatch.setattr("hf_tasks.export.triton.write_model", fill_disk)
    options = ExportOptions(("torchscript", "triton"), sample=1)

    with pytest.raises(OSError, match="No space left"):
        export_run(make_plan(), options, tmp_path / "export", run_folder=tmp_path, facts={"new": "one"})

    records = read_records(tmp_path / "export/parity.json")
    assert {item["format"] for item in records} == earlier
    assert all(sha256_of(tmp_path / item["file"]) == item["sha256"] for item in records)
    assert not list(tmp_path.rglob("half"))


def test_temperature_and_thresholds_of_several_classes_come_out_of_the_complete_graphs(
    multilabel_run, digits, tmp_path, monkeypatch
):
    monkeypatch.chdir(digits)
    recipe = load_recipe(multilabel_run / "recipe.yaml")
    task = load_task(recipe.task)
    splits = task.prepare(recipe.settings)
    plan = task.plan_export(recipe.settings, task.load_model(multilabel_run / "model"), splits)
    classes = plan.labels
    assert plan.pictures.temperature != 1
    assert set(plan.pictures.thresholds) != {0.5}

    files = [*write_files(plan, "onnx", tmp_path, metadata={})]
    files += write_files(plan, "torchscript", tmp_path, metadata={})
    records = prove_files(plan, files, range(40), asked={})
    with (multilabel_run / "predictions.csv").open() as file:
        number, row = next((n, row) for n, row in enumerate(csv.DictReader(file)) if row["predicted"])
    picture = plan.pictures.load(number)[None]
    by_onnx = open_network(tmp_path / "onnx/end_to_end.onnx").session.run(None, {"pictures": picture})
    by_torch = open_network(tmp_path / "torchscript/end_to_end.pt").module(torch.from_numpy(picture))

    wanted = [float(row[f"probability_{name}"]) for name in classes]
    for probabilities, decisions in (by_onnx, by_torch):
        assert np.asarray(probabilities)[0].tolist() == pytest.approx(wanted, abs=2e-3)
        found = [name for name, is_there in zip(classes, decisions[0], strict=True) if is_there]
        assert "|".join(found) == row["predicted"]
    assert [record.reason for record in records] == [None] * 4


def test_optimum_loads_the_folder(exported, run_folder):
    optimum = pytest.importorskip("optimum.onnxruntime", reason="needs transformers < 4.58")
    pixel_values = torch.rand(2, 3, 32, 32)
    plain = AutoModelForImageClassification.from_pretrained(run_folder / "model").eval()

    loaded = optimum.ORTModelForImageClassification.from_pretrained(run_folder / "export/onnx")

    with torch.inference_mode():
        wanted = plain(pixel_values).logits
    torch.testing.assert_close(loaded(pixel_values=pixel_values).logits, wanted, atol=1e-4, rtol=0)
    assert loaded.config.id2label == dict(enumerate(CLASSES))


@pytest.mark.parametrize("format_name", ALL_FORMATS)
def test_predict_gives_the_same_rows_with_an_export(exported, run_folder, tmp_path, format_name):
    inputs = [run_folder.parent / "validation"]
    for name, chosen in (("saved", None), ("exported", format_name)):
        predict_files(run_folder, inputs, tmp_path / f"{name}.jsonl", batch_size=7, with_format=chosen)

    saved, found = (
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("saved", "exported")
    )

    rounding = {"onnx": 1e-5, "torchscript": 1e-5, "onnx-fp16": 5e-3, "onnx-int8": 0.2, "torchao-int8": 0.05}
    tolerance = rounding[format_name]
    assert [row["path"] for row in found] == [row["path"] for row in saved]
    assert [list(row) for row in found] == [list(row) for row in saved]
    for row, other in zip(saved, found, strict=True):
        assert row["probability_red"] == pytest.approx(other["probability_red"], abs=tolerance)
    assert np.mean([a["predicted"] == b["predicted"] for a, b in zip(saved, found, strict=True)]) >= 0.98


def write_jpegs(folder):
    """Crops of two photographs, tinted, at odd sizes; large and small, upright and wide."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(60):
        image = load_sample_images().images[number % 2]
        height, width = rng.integers(40, 427), rng.integers(40, 640)
        tint = 1 - 0.6 * np.eye(3)[rng.integers(3)]
        picture = Image.fromarray((image[:height, :width] * tint).astype(np.uint8))
        scale = rng.uniform(0.5, 3)
        size = (int(width * scale) | 1, int(height * scale) | 1)
        picture.resize(size).save(folder / f"{number:02}.jpg", quality=90)


@pytest.mark.parametrize("format_name", ["onnx", "torchscript"])
def test_complete_graphs_agree_with_predict_on_jpegs_of_odd_sizes(
    exported, run_folder, tmp_path, format_name
):
    write_jpegs(tmp_path / "jpegs")
    predict_files(run_folder, [tmp_path / "jpegs"], tmp_path / "x.jsonl", batch_size=16)
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    network = open_network(next((run_folder / "export" / format_name).glob("end_to_end.*")))

    found = np.concatenate([network({"pictures": np.array(Image.open(row["path"]))[None]}) for row in rows])

    wanted = np.array([[row[f"probability_{name}"] for name in CLASSES] for row in rows])
    assert np.abs(found - wanted).max() < 2e-3
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.995
    assert len(set(wanted.argmax(1).tolist())) > 1  # the pictures are not all alike to the model


def test_a_format_that_was_not_exported_is_named(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("onnx-int8"))

    with pytest.raises(ExportError, match=r"make it with `hf-tasks export .*run onnx-int8`"):
        predict_files(
            tmp_path / "run",
            [run_folder.parent / "validation"],
            tmp_path / "x.csv",
            batch_size=8,
            with_format="onnx-int8",
        )


def test_a_refused_file_is_moved_aside_and_told(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("export"))
    recipe = tmp_path / "run" / "recipe.yaml"
    strict = "export: {formats: [torchscript], sample: 20, tolerance: {difference: 0}}"
    recipe.write_text(recipe.read_text().split("export:")[0] + strict)

    with pytest.raises(ExportError, match=r"(?s)2 of 2 files .* torchscript: outputs differ by up to"):
        export_saved(tmp_path / "run", [], checkpoint="best", backend=None, console=SILENT)

    export = tmp_path / "run" / "export"
    assert not (export / "torchscript" / "model.pt").exists()
    assert (export / "rejected" / "torchscript" / "model.pt").is_file()
    assert not (export / ".unproved").exists()
    record = json.loads((export / "parity.json").read_text())["formats"][0]
    assert (record["passed"], record["examples"]) == (False, 20)
    assert record["file"] == "export/rejected/torchscript/model.pt"


def test_a_checkpoint_that_is_not_there_is_told_with_those_that_are(run_folder):
    with pytest.raises(UserError, match=r"found 'checkpoint-77', wanted one of best, last, checkpoint-\d"):
        export_saved(
            run_folder, ["onnx"], checkpoint="checkpoint-77", backend=None, console=Console(quiet=True)
        )


def test_a_checkpoint_is_exported_beside_the_best(run_folder):
    export_saved(run_folder, ["torchscript"], checkpoint="last", backend=None, console=SILENT)

    record = json.loads((run_folder / "export/last/parity.json").read_text())["formats"][0]

    assert record["file"] == "export/last/torchscript/model.pt"
    assert (run_folder / record["file"]).is_file()


def test_the_trial_names_every_impossible_format(make_plan, tmp_path):
    plan = make_plan()

    class Undecided(SwappedChannels):
        def forward(self, pixel_values):
            if pixel_values.sum().item() > 1e9:
                raise ValueError("too bright")
            return self.model(pixel_values * np.random.default_rng().random())

    fickle = replace(plan, model=Undecided(plan.model))

    with pytest.raises(
        ExportError, match=r"(?s)cannot be traced.*(onnx: outputs differ|written as ONNX: (?!Failed))"
    ):
        try_formats(fickle, ExportOptions(("torchscript", "onnx")), tmp_path)


def test_a_format_that_a_task_refuses_is_told_with_its_reason():
    refused = {"torchscript": "its layers look at their inputs"}

    with pytest.raises(ExportError, match="as torchscript: its layers look at their inputs"):
        require_formats(["onnx", "torchscript"], refused=refused)


def test_the_picture_size_can_be_free(make_plan, tmp_path):
    plan = make_plan()

    (plain, _) = write_files(plan, "onnx", tmp_path, metadata={}, has_free_size=True)
    records = prove_files(plan, [plain], range(20), asked={}, has_free_size=True)

    assert records[0].passed
    larger = open_network(plain.path)({"pixel_values": np.zeros((1, 3, 64, 96), np.float32)})
    assert larger.shape == (1, 3)


def test_a_fixed_graph_fails_the_proof_of_a_free_size(make_plan, tmp_path):
    plan = make_plan()

    (plain, _) = write_files(plan, "onnx", tmp_path, metadata={}, has_free_size=False)
    records = prove_files(plan, [plain], range(20), asked={}, has_free_size=True)

    assert records[0].reason == "it does not run on larger pictures; set export.image_size: fixed"


def test_the_exporter_of_torch_gives_the_same_network(make_plan, tmp_path):
    plan = make_plan()

    files = write_files(plan, "onnx", tmp_path, metadata={}, backend="torch")
    records = prove_files(plan, files, range(20), asked={})

    assert [record.reason for record in records] == [None, None]


def test_the_sample_is_always_the_same():
    first, second = choose_rows(1000, sample=50), choose_rows(1000, sample=50)

    assert first == second == sorted(set(first))
    assert choose_rows(10, sample=50) == list(range(10))


def test_answers_that_are_no_numbers_are_refused(make_plan):
    plan = make_plan()
    found = compare_networks(
        plan, {"nan": lambda inputs: np.full((len(inputs["pixel_values"]), 3), np.nan)}, [0, 1]
    )

    for name in FORMATS:
        assert refusal(found["nan"], tolerance_of(name, end_to_end=False, asked={})) is not None
