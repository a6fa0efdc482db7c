"""Whole runs of language models: exact when resumed, measured over all text, and continued by predict."""

import json
import shutil
from itertools import pairwise

import datasets
import numpy as np
import pyarrow.csv
import pytest
import torch
from conftest import run_program
from forked_program import run_group
from markupsafe import escape
from rich.console import Console
from sentence_transformers import SentenceTransformer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_tasks import workflow
from hf_tasks.artifacts import Artifacts
from hf_tasks.data.documents import load_documents
from hf_tasks.data.sources import TableSource, TextFile
from hf_tasks.errors import ModelError
from hf_tasks.recipe import load_recipe
from hf_tasks.report.page import figure
from hf_tasks.tasks.language_model.blocks import CausalBlocks, document_numbers, pack
from hf_tasks.tasks.language_model.data import prepare_splits
from hf_tasks.tasks.language_model.model import load_language_model
from hf_tasks.tasks.language_model.settings import Settings
from hf_tasks.tasks.language_model.task import _tokenizer_documents
from hf_tasks.tasks.siamese.model import open_encoder
from hf_tasks.tasks.siamese.settings import Model
from hf_tasks.workflow.prediction import predict_files

QUIET = Console(quiet=True)
RECIPE = """\
task: language-model
output: {output}
data:
  train: {{text: {folder}/train.txt}}
  validation: {{text: {folder}/test.txt}}
model:
  from_scratch: {{vocab_size: 300, hidden_size: 16, layers: 1, heads: 2, block_size: 16}}
objective: {objective}
generation: {{max_new_tokens: 5, samples: 2}}
training:
  num_train_epochs: 2
  per_device_train_batch_size: 4
  eval_strategy: steps
  eval_steps: 5
  save_strategy: steps
  save_steps: 5
  use_cpu: true
checkpoints: {{keep_best: 50}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    for name, rows in (("train", range(40)), ("test", range(40, 52))):
        lines = [f"the {row}th day had {row % 3} hours of rain and {row % 7} of sun" for row in rows]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    return folder


def _recipe(home, name, objective, *overrides):
    path = home / f"{name}.yaml"
    path.write_text(RECIPE.format(output=home / name, folder=home, objective=objective))
    return load_recipe(path, overrides)


@pytest.fixture(scope="module")
def causal_run(home):
    return workflow.run(_recipe(home, "causal", "causal", "report.tensorboard=true"), console=QUIET)


@pytest.fixture(scope="module")
def adapted_run(home, causal_run):
    return workflow.run(_adapted_recipe(home, "adapted"), console=QUIET)


def _adapted_recipe(home, name):
    return _recipe(
        home, name, "causal", f"model={{name: {home}/causal, lora: {{rank: 2}}}}",
        "training.max_steps=10", "training.learning_rate=0.01",
    )  # fmt: skip


@pytest.fixture(scope="module")
def masked_run(home):
    return workflow.run(_recipe(home, "masked", "masked"), console=QUIET)


@pytest.mark.parametrize("kind", ["causal", "masked", "adapted"])
def test_a_run_killed_after_five_steps_ends_with_the_same_weights(home, kind, request):
    whole, name = request.getfixturevalue(f"{kind}_run"), f"resumed-{kind}"
    resumed = Artifacts(home / name)
    recipe = _adapted_recipe(home, name) if kind == "adapted" else _recipe(home, name, kind)
    shutil.copytree(whole.folder, resumed.folder)
    shutil.rmtree(resumed.model)
    for checkpoint in resumed.checkpoints.iterdir():
        if checkpoint.name != "checkpoint-5":
            shutil.rmtree(checkpoint)

    workflow.run(recipe, resume=True, console=QUIET)

    assert (resumed.model / "model.safetensors").read_bytes() == (
        whole.model / "model.safetensors"
    ).read_bytes()


def test_figures_are_those_of_the_saved_model_document_by_document(home, causal_run):
    model = AutoModelForCausalLM.from_pretrained(causal_run.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(causal_run.model)
    lines = (home / "test.txt").read_text().splitlines()
    end = tokenizer.eos_token_id

    tokens = [token for line in lines for token in (end, *tokenizer(line)["input_ids"])] + [end]
    bits = 0.0
    for start in range(0, len(tokens) - 1, 16):
        window = tokens[start : start + 17]
        # Cut where documents begin: what stands before is out of sight.
        cuts = [0, *[place for place in range(1, len(window) - 1) if window[place] == end], len(window) - 1]
        for first, last in pairwise(cuts):
            part = torch.tensor(window[first : last + 1])
            with torch.inference_mode():
                logits = model(part[None, :-1]).logits[0]
            bits += torch.nn.functional.cross_entropy(logits, part[1:], reduction="sum").item() / 0.6931471806

    metrics = json.loads(causal_run.metrics.read_text())
    wanted = bits / len("".join(f"{line}\n" for line in lines).encode())
    assert metrics["bits_per_byte"] == pytest.approx(wanted, rel=1e-4)


def test_masked_figures_are_the_same_for_every_batch_size(home, masked_run, tmp_path):
    recipe = masked_run.recipe.read_text()

    masked_run.recipe.write_text(recipe.replace("use_cpu:", "per_device_eval_batch_size: 3, use_cpu:"))
    again = workflow.evaluate(masked_run.folder, out=tmp_path, console=QUIET)
    masked_run.recipe.write_text(recipe)

    first, second = (json.loads(run.metrics.read_text())["loss"] for run in (masked_run, again))
    assert first == pytest.approx(second, rel=1e-5)


@pytest.mark.slow
def test_two_processes_measure_what_one_does(causal_run, tmp_path):
    arguments = ["evaluate", str(causal_run.folder), "--out", str(tmp_path / "two")]

    run_group(arguments, tmp_path / "log", processes=2)

    folders = (causal_run.folder, tmp_path / "two")
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
    assert two["bits_per_byte"] == pytest.approx(one["bits_per_byte"], rel=1e-6)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)


def test_samples_begin_with_held_out_documents(home, causal_run):
    samples = pyarrow.csv.read_csv(causal_run.folder / "samples.csv").to_pydict()

    lines = (home / "test.txt").read_text().splitlines()
    assert len(samples["prompt"]) == 2
    for prompt, line in zip(samples["prompt"], lines, strict=False):
        assert line.startswith(prompt)


def test_predict_continues_each_prompt_the_same_way_twice(causal_run, tmp_path):
    (tmp_path / "prompts.txt").write_text("the 9th day\n\nhours of\n" + "very long " * 50)

    texts = []
    for batch_size in (1, 8):
        out = tmp_path / f"{batch_size}.jsonl"
        predict_files(causal_run.folder, [tmp_path / "prompts.txt"], out, batch_size=batch_size)
        texts.append(out.read_text())

    rows = [json.loads(line) for line in texts[0].splitlines()]
    assert texts[0] == texts[1]
    assert [row["prompt"] for row in rows][:2] == ["the 9th day", "hours of"]
    assert all(row["error"] is None for row in rows)


def test_prompts_and_held_out_text_of_another_encoding_are_read(home, causal_run, tmp_path):
    text = (home / "test.txt").read_text()
    (tmp_path / "prompts.txt").write_text("день\n", encoding="utf-16")
    (tmp_path / "held_out.txt").write_text(text, encoding="utf-16")

    predict_files(
        causal_run.folder, [tmp_path / "prompts.txt"], tmp_path / "x.jsonl", batch_size=1, encoding="utf-16"
    )
    again = workflow.evaluate(
        causal_run.folder,
        TableSource(table=str(tmp_path / "held_out.txt"), encoding="utf-16"),
        out=tmp_path / "again",
        console=QUIET,
    )

    bits = [json.loads(run.metrics.read_text())["bits_per_byte"] for run in (causal_run, again)]
    assert json.loads((tmp_path / "x.jsonl").read_text())["prompt"] == "день"
    assert bits[0] == pytest.approx(bits[1], rel=1e-6)


def test_a_masked_model_continues_no_text(masked_run, tmp_path):
    (tmp_path / "prompts.txt").write_text("the")

    with pytest.raises(ModelError, match="a masked language model continues no text"):
        predict_files(masked_run.folder, [tmp_path / "prompts.txt"], tmp_path / "o.csv", batch_size=1)


@pytest.mark.parametrize("run", ["causal_run", "masked_run"])
def test_a_language_model_trained_here_becomes_an_encoder_that_never_averages_padding(run, request):
    folder = request.getfixturevalue(run).folder

    encoder = open_encoder(Model(name=str(folder)))

    assert isinstance(encoder, SentenceTransformer)
    texts = ["rain", "a much longer text about hours of sun"]
    together, alone = encoder.encode(texts), encoder.encode(texts[:1])
    torch.testing.assert_close(torch.tensor(together[:1]), torch.tensor(alone), atol=1e-5, rtol=1e-4)


def test_an_earlier_run_is_trained_on_and_its_tokenizer_kept(home, causal_run):
    recipe = _recipe(
        home, "further", "causal", f"model={{name: {causal_run.folder}}}", "training.max_steps=2",
        "training.eval_steps=2", "training.save_steps=2",
    )  # fmt: skip

    further = workflow.run(recipe, console=QUIET)

    assert (further.model / "tokenizer.json").read_bytes() == (
        causal_run.model / "tokenizer.json"
    ).read_bytes()


def test_adapters_are_merged_into_what_is_saved(causal_run, adapted_run):
    before, after = (
        AutoModelForCausalLM.from_pretrained(run.model).state_dict() for run in (causal_run, adapted_run)
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert set(before) == set(after)
    assert changed == {f"transformer.h.0.{name}.weight" for name in
                       ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")}  # fmt: skip


def test_equal_documents_are_counted_and_dropped_only_if_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "a.txt").write_text("one\ntwo\none\none\n")
    (tmp_path / "b.txt").write_text("two\nthree\n")
    data = {"train": {"text": str(tmp_path / "a.txt")}, "validation": {"text": str(tmp_path / "b.txt")}}

    kept = prepare_splits(Settings(data=data, model={"from_scratch": {}}))
    dropped = prepare_splits(Settings(data={**data, "drop_duplicates": True}, model={"from_scratch": {}}))

    assert kept.facts["train"] == {"rows": 4, "duplicates": 2}
    assert kept.facts["validation_documents_in_train"] == 1
    assert kept.train["text"][:] == ["one", "two", "one", "one"]
    assert dropped.train["text"][:] == ["one", "two"]


def test_a_split_keeps_equal_documents_on_one_side(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "a.txt").write_text("".join(f"document {row % 100}\n" for row in range(300)))
    data = {"train": {"text": str(tmp_path / "a.txt")}, "validation": 0.3}

    splits = prepare_splits(Settings(data=data, model={"from_scratch": {}}))

    train, validation = set(splits.train["text"][:]), set(splits.validation["text"][:])
    assert train.isdisjoint(validation)
    assert len(validation) == pytest.approx(30, abs=12)


def test_much_text_gives_an_even_part_of_it_to_the_tokenizer(monkeypatch):
    documents = datasets.Dataset.from_dict({"text": [f"document {row:4}" for row in range(100)]})
    monkeypatch.setattr("hf_tasks.tasks.language_model.task.TOKENIZER_BYTES", documents.data.nbytes / 10)

    learnt_from = list(_tokenizer_documents(documents))

    assert learnt_from == documents["text"][::10]


def test_the_page_shows_what_the_model_writes_and_what_surprises_it(causal_run):
    samples = pyarrow.csv.read_csv(causal_run.folder / "samples.csv").to_pylist()
    blocks = pyarrow.csv.read_csv(causal_run.predictions).to_pylist()
    hardest = max(blocks, key=lambda row: row["loss"])

    page = causal_run.report.read_text(encoding="utf-8")

    assert all(str(escape(sample["prompt"])) in page for sample in samples)
    assert str(escape(hardest["text"])) in page
    assert ">Perplexity</figcaption>" in page


def test_intervals_hold_the_figures_and_stand_in_the_page(causal_run):
    metrics = json.loads(causal_run.metrics.read_text())

    page = causal_run.report.read_text(encoding="utf-8")

    assert set(metrics["intervals"]) == {"loss", "perplexity", "bits_per_byte"}
    for name, (low, high) in metrics["intervals"].items():
        assert low < metrics[name] < high
        assert f"{figure(low)} to {figure(high)}" in page


def test_a_block_belongs_to_the_document_that_it_begins_in(home, causal_run):
    loaded = load_language_model(causal_run.model)
    documents = load_documents(TextFile(text=str(home / "test.txt")), column="text")
    blocks = CausalBlocks(pack(documents, loaded), loaded, keep_rest=True, positions=True)

    numbers = document_numbers(blocks)

    tokens = blocks.tokens.tolist()
    expected = [tokens[: start + 1].count(loaded.boundary) - 1 for start in range(0, len(tokens) - 1, 16)]
    assert numbers.tolist() == expected


def test_the_program_compares_two_runs_by_their_blocks(causal_run, adapted_run):
    done = run_program("compare", causal_run.folder, adapted_run.folder, folder=causal_run.folder)

    before, after = (
        np.array(pyarrow.csv.read_csv(run.predictions)["loss"]) for run in (causal_run, adapted_run)
    )
    page = (adapted_run.folder / "compared_with_causal.html").read_text(encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert f"better: {(after < before).sum()}\n" in done.stdout
    assert f"worse: {(after > before).sum()}\n" in done.stdout
    for run in (causal_run, adapted_run):
        assert f">{figure(json.loads(run.metrics.read_text())['loss'])}<" in page
    assert "model.lora.rank" in done.stdout


def test_tensorboard_has_what_the_model_writes(causal_run):
    events = EventAccumulator(str(causal_run.folder / "logs"), size_guidance={"tensors": 0}).Reload()
    samples = pyarrow.csv.read_csv(causal_run.folder / "samples.csv").to_pylist()

    for number, sample in enumerate(samples):
        [event] = events.Tensors(f"samples/{number}/text_summary")
        [text] = make_ndarray(event.tensor_proto).tolist()
        assert " ".join(sample["prompt"].split()) in text.decode()
        assert " ".join(sample["continuation"].split()) in text.decode()
    assert "eval/bits_per_byte" in events.Tags()["scalars"]


@pytest.mark.parametrize("drop_duplicates", [False, True])
def test_skipped_documents_are_on_neither_side_and_all_others_on_one(tmp_path, drop_duplicates):
    lines = [f"document {number}".encode() for number in range(40)]
    lines[0], lines[5] = b"bad \xff", b"bad \xfe"
    (tmp_path / "text.txt").write_bytes(b"\n".join(lines))
    train = {"text": str(tmp_path / "text.txt")}
    data = {"train": train, "validation": 0.3, "drop_duplicates": drop_duplicates}
    model = {"from_scratch": {"hidden_size": 16, "layers": 1, "heads": 2}}

    splits = prepare_splits(Settings.model_validate({"data": data, "model": model, "on_bad_example": "skip"}))

    found = [*splits.train["text"], *splits.validation["text"]]
    assert sorted(found) == sorted(line.decode() for line in lines if not line.startswith(b"bad"))
    assert [entry["row"] for entry in splits.facts["skipped"]] == [1, 6]
