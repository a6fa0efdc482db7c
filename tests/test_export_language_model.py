"""Exports of language models: logits, bits per byte and the text they write, with the past in the file."""

import json
import logging

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

from hf_tasks import workflow
from hf_tasks.contract.exports import Decisions
from hf_tasks.errors import ExportError
from hf_tasks.export.files import ExportedFile, write_files
from hf_tasks.export.networks import open_network
from hf_tasks.export.prove import prove_files
from hf_tasks.export.writing import Written, compare_writing
from hf_tasks.recipe import load_recipe
from hf_tasks.registry import load_task
from hf_tasks.workflow.prediction import predict_files

SILENT = Console(quiet=True)
CAUSAL = ("onnx", "onnx-int8", "onnx-fp16", "torchao-int8")
MASKED = ("onnx", "onnx-int8", "torchscript", "triton")
RECIPE = """\
task: language-model
output: {home}/{name}
data: {{train: {{text: {home}/train.txt}}, validation: {{text: {home}/test.txt}}}}
model: {model}
objective: {objective}
generation: {{max_new_tokens: 12, samples: 0}}
training: {{num_train_epochs: 3, per_device_train_batch_size: 8, use_cpu: true}}
export: [{formats}]
"""
FROM_SCRATCH = "{from_scratch: {vocab_size: 300, hidden_size: 32, layers: 2, heads: 2, block_size: 32}}"

pytestmark = pytest.mark.slow


def write_recipe(home, name, objective, formats, model=FROM_SCRATCH):
    path = home / f"{name}.yaml"
    path.write_text(
        RECIPE.format(home=home, name=name, model=model, objective=objective, formats=", ".join(formats))
    )
    return load_recipe(path)


def train(home, name, objective, formats, model=FROM_SCRATCH):
    return workflow.run(write_recipe(home, name, objective, formats, model), console=SILENT).folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("language")
    for name, rows in (("train", range(120)), ("test", range(120, 150))):
        lines = [f"the {row}th day had {row % 3} hours of rain and {row % 7} of sun" for row in rows]
        (home / f"{name}.txt").write_text("\n".join(lines))
    return home


@pytest.fixture(scope="module")
def causal(home):
    pytest.importorskip("optimum.onnxruntime", reason="needs transformers < 4.58")
    return train(home, "causal", "causal", CAUSAL)


@pytest.fixture(scope="module")
def masked(home):
    return train(home, "masked", "masked", MASKED)


def records_of(run):
    return json.loads((run / "export/parity.json").read_text())["formats"]


def plan_of(run):
    recipe = load_recipe(run / "recipe.yaml")
    task = load_task(recipe.task)
    return task.plan_export(recipe.settings, task.load_model(run / "model"), task.prepare(recipe.settings))


def test_every_format_of_a_causal_model_is_proved_on_the_text_of_the_evaluation(causal):
    metrics = json.loads((causal / "metrics.json").read_text())

    records = records_of(causal)

    assert [(record["format"], record["passed"]) for record in records] == [(name, True) for name in CAUSAL]
    assert {record["metric"]["name"] for record in records} == {"bits_per_byte"}
    assert [record["metric"]["before"] for record in records] == pytest.approx(
        [metrics["bits_per_byte"]] * len(records), rel=1e-6
    )
    assert records[0]["metric"]["after"] == pytest.approx(metrics["bits_per_byte"], rel=1e-6)


def test_what_files_write_is_compared_token_for_token(causal):
    records = {record["format"]: record["writing"] for record in records_of(causal)}

    assert {(writing["texts"], writing["tokens"]) for writing in records.values()} == {(8, 8 * 16)}
    assert records["onnx"]["agreement"] == 1
    assert all(writing["ms_per_token"] > 0 for writing in records.values())


def test_optimum_loads_the_folder_and_writes_with_past_what_transformers_writes(causal):
    from optimum.onnxruntime import ORTModelForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(causal / "export/onnx")
    inputs = tokenizer("the 9th day had", return_tensors="pt")
    options = {
        "max_new_tokens": 15,
        "do_sample": False,
        "temperature": 1.0,
        "pad_token_id": tokenizer.pad_token_id,
    }
    loaded = ORTModelForCausalLM.from_pretrained(causal / "export/onnx", use_cache=True)

    found = loaded.generate(**inputs, **options)

    saved = AutoModelForCausalLM.from_pretrained(causal / "model")
    assert loaded.can_use_cache
    assert found.tolist() == saved.generate(**inputs, **options).tolist()


def test_tokens_read_one_by_one_get_the_logits_of_the_whole_text(causal):
    network = open_network(causal / "export/onnx/model.onnx")
    token_ids = np.arange(2 * 9).reshape(2, 9)
    model = AutoModelForCausalLM.from_pretrained(causal / "model").eval()

    logits = [
        network({"input_ids": token_ids[:, [place]], "attention_mask": np.ones((2, place + 1), np.int64)})
        for place in range(9)
    ]

    with torch.inference_mode():
        wanted = model(torch.from_numpy(token_ids)).logits.numpy()
    assert network.past_tokens == 9
    np.testing.assert_allclose(np.concatenate(logits, axis=1), wanted, atol=1e-5)


@pytest.mark.parametrize("format_name", CAUSAL)
def test_predict_continues_prompts_alike_with_an_export(causal, tmp_path, format_name):
    (tmp_path / "prompts.txt").write_text("the 9th day\n\nhours of\n" + "very long " * 50)

    for name, chosen in (("saved", None), ("exported", format_name)):
        out = tmp_path / f"{name}.jsonl"
        predict_files(causal, [tmp_path / "prompts.txt"], out, batch_size=2, with_format=chosen)

    saved, found = (
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").open()] for name in ("saved", "exported")
    )
    assert [row["prompt"] for row in found] == [row["prompt"] for row in saved]
    if format_name == "onnx":
        assert found == saved


def test_a_past_that_goes_astray_is_caught_and_named(causal, tmp_path):
    """Keys of the first layer come out doubled: a text that is read at once would not notice."""
    graph = onnx.load(causal / "export/onnx/model.onnx")
    (producer,) = [node for node in graph.graph.node if "present.0.key" in node.output]
    uses = [node for node in graph.graph.node if "present.0.key" in node.input]
    for node, names in [(producer, producer.output), *((node, node.input) for node in uses)]:
        names[list(names).index("present.0.key")] = "keys"
        assert node is not None
    graph.graph.node.append(onnx.helper.make_node("Add", ["keys", "keys"], ["present.0.key"]))
    (tmp_path / "onnx").mkdir()
    onnx.save(graph, tmp_path / "onnx/model.onnx")

    (record,) = prove_files(
        plan_of(causal), [ExportedFile("onnx", tmp_path / "onnx/model.onnx")], range(10), asked={}
    )

    assert not record.passed
    assert "outputs differ" in record.reason
    assert record.writing.agreement < 1


@pytest.mark.parametrize(
    ("name", "format_name"),
    [*(("causal", name) for name in CAUSAL), *(("masked", name) for name in MASKED if name != "triton")],
)
def test_a_head_with_other_weights_is_caught(request, tmp_path, name, format_name):
    run = request.getfixturevalue(name)
    plan, faulty = plan_of(run), plan_of(run)
    torch.nn.init.normal_(faulty.model.get_output_embeddings().weight)

    files = write_files(faulty, format_name, tmp_path, metadata={})
    (record,) = prove_files(plan, files, range(10), asked={})

    assert not record.passed
    assert record.metric.loss > 0


def test_a_llama_with_adapters_is_exported_as_it_was_merged(home, causal):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    vocabulary = len(AutoTokenizer.from_pretrained(causal / "model"))
    config = LlamaConfig(vocab_size=vocabulary, num_key_value_heads=2, max_position_embeddings=48, **sizes)
    LlamaForCausalLM(config).save_pretrained(home / "llama")
    AutoTokenizer.from_pretrained(causal / "model").save_pretrained(home / "llama")
    model = f"{{name: {home}/llama, block_size: 48, lora: {{rank: 4}}}}"

    run = train(home, "of_llama", "causal", ["onnx", "onnx-int8", "torchao-int8"], model)

    metrics = json.loads((run / "metrics.json").read_text())
    records = {record["format"]: record for record in records_of(run)}
    assert [record["reason"] for record in records.values()] == [None] * 3
    assert records["onnx"]["metric"]["after"] == pytest.approx(metrics["bits_per_byte"], rel=1e-5)
    assert records["torchao-int8"]["bytes"] < 0.6 * records["onnx"]["bytes"]


def test_every_format_of_a_masked_model_is_proved(masked):
    records = {record["format"]: record for record in records_of(masked)}

    assert set(records) == set(MASKED)
    assert [record["reason"] for record in records.values()] == [None] * len(records)
    assert {record["metric"]["name"] for record in records.values()} == {"loss"}
    assert all("writing" not in record for record in records.values())


def test_optimum_fills_masks_from_the_folder(masked):
    optimum = pytest.importorskip("optimum.onnxruntime", reason="needs transformers < 4.58")
    tokenizer = AutoTokenizer.from_pretrained(masked / "export/onnx")
    inputs = tokenizer("the <|mask|> day", return_tensors="pt")

    found = optimum.ORTModelForMaskedLM.from_pretrained(masked / "export/onnx")(**inputs).logits

    wanted = AutoModelForMaskedLM.from_pretrained(masked / "model").eval()(**inputs).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "why"), [("torchscript", "torch.jit cannot trace"), ("triton", "carry the keys")]
)
@pytest.mark.parametrize("way", [workflow.run, workflow.check])
def test_what_a_causal_model_cannot_keep_is_refused_before_training(home, way, name, why):
    recipe = write_recipe(home, "refused", "causal", ["onnx", name])

    with pytest.raises(ExportError, match=f"cannot be exported as {name}: .*{why}"):
        way(recipe, console=SILENT)

    assert not recipe.output.exists()


def test_torch_writes_a_causal_model_without_past_and_says_so(causal, tmp_path, caplog):
    pytest.importorskip("onnxscript")
    plan = plan_of(causal)

    with caplog.at_level(logging.WARNING, "hf_tasks"):
        files = write_files(plan, "onnx", tmp_path, metadata={}, backend="torch")
    (record,) = prove_files(plan, files, range(10), asked={})

    assert (record.reason, record.writing.agreement) == (None, 1)
    assert "without past" in caplog.text


def test_texts_that_part_at_a_tie_are_compared_up_to_there():
    """The first text parts at a tie, after 1 token; the second at its last, no tie: 3 of 4 agree."""
    wanted = Decisions(np.array([[1, 2, 3], [4, 5, 6]]), np.array([[1.0, 1e-6, 1.0], [1.0, 1.0, 1.0]]))
    found = Decisions(np.array([[1, 9, 9], [4, 5, 9]]), np.zeros((2, 3)))

    writing = compare_writing(Written(found, 2.0), Written(wanted, 3.0), tie=1e-4)

    assert (writing.texts, writing.tokens, writing.agreement) == (2, 4, 0.75)
    assert (writing.ms_per_token, writing.reference_ms_per_token) == (2.0, 3.0)
