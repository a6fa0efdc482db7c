"""A decoder without a padding token as encoder of pairs: Cyrillic texts, scores, triplets, adapters."""

import csv
import json
import shutil

import numpy as np
import pyarrow.csv
import pytest
import torch
import transformers
from rich.console import Console
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModel, AutoTokenizer, GPT2Config, GPT2Model, PreTrainedTokenizerFast

from hf_tasks import workflow
from hf_tasks.errors import ExportError
from hf_tasks.recipe import load_recipe
from hf_tasks.tasks.siamese.model import build_static, count_cut_texts, load_pair_model, open_encoder
from hf_tasks.tasks.siamese.settings import Model, Static

WORDS = [
    "жёлтый",
    "лён",
    "бежит",
    "день",
    "зимний",
    "лист",
    "кружит",
    "над",
    "домом",
    "поздно",
    "снег",
    "идёт",
]
END, POSITIONS = "<|endoftext|>", 24
RECIPE = """\
task: siamese
output: {folder}/{name}
data:
  train: {{table: {folder}/{name}.csv}}
  validation: 0.3
  columns: {columns}
model: {{name: {folder}/decoder{more}}}
training:
  {{max_steps: 2, per_device_train_batch_size: 8, learning_rate: 0.01, use_cpu: true,
    eval_strategy: steps, eval_steps: 1, save_strategy: steps, save_steps: 1}}
checkpoints: {{keep_best: 2}}
"""
ADAPTED = ("{text_1: a, text_2: b, negative: c}", ", lora: {rank: 2}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables, and a tiny GPT-2 whose tokenizer pads on the left and has no token to pad with."""
    folder = tmp_path_factory.mktemp("decoder")
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, 1 + row % 5)) + f" {row}" for row in range(120)]
    scores = [f"{score:.2f}" for score in generator.random(40)]
    _write(folder / "scores.csv", [("a", "b", "score"), *zip(texts[:40], texts[40:80], scores, strict=True)])
    triplets = zip(texts[:40], texts[40:80], texts[80:], strict=True)
    _write(folder / "triplets.csv", [("a", "b", "c"), *triplets])
    _save_decoder(folder / "decoder", texts)
    return folder


def _write(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _save_decoder(path, texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, padding_side="left").save_pretrained(
        path
    )
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS}
    GPT2Model(GPT2Config(vocab_size=tokenizer.get_vocab_size(), **sizes)).save_pretrained(path)


def _run(folder, name, columns, more="", *, resume=False):
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE.format(folder=folder, name=name, columns=columns, more=more), encoding="utf-8")
    return workflow.run(load_recipe(path), console=Console(quiet=True), resume=resume)


@pytest.fixture(scope="module")
def scored_run(folder):
    return _run(folder, "scores", "{text_1: a, text_2: b, label: score}")


@pytest.fixture(scope="module")
def adapted_run(folder):
    return _run(folder, "triplets", *ADAPTED)


def test_embeddings_are_means_over_the_tokens_of_the_text_alone(scored_run):
    texts = ["день", "зимний лист кружит над домом", "снег"]

    together = SentenceTransformer(str(scored_run.model), device="cpu").encode(texts)

    model = AutoModel.from_pretrained(scored_run.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(scored_run.model)
    for text, embedding in zip(texts, together, strict=True):
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(embedding, states.mean(dim=0), atol=1e-5)


def test_scores_are_measured_by_their_ranks(scored_run):
    rows = pyarrow.csv.read_csv(scored_run.predictions).to_pydict()
    metrics = json.loads(scored_run.metrics.read_text())

    assert metrics["spearman"] == pytest.approx(spearmanr(rows["score"], rows["label"]).statistic)
    assert "average_precision" not in metrics


def test_triplets_train_adapters_that_the_saved_model_no_longer_has(folder, adapted_run):
    before, after = (
        AutoModel.from_pretrained(path).state_dict() for path in (folder / "decoder", adapted_run.model)
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")

    assert set(before) == set(after)
    assert changed == {f"h.{number}.{name}.weight" for number in range(2) for name in layers}


def test_adapters_that_were_killed_after_a_step_end_as_those_that_were_not(folder, adapted_run):
    wanted = (adapted_run.model / "model.safetensors").read_bytes()
    shutil.rmtree(adapted_run.model)
    shutil.rmtree(adapted_run.checkpoints / "checkpoint-2")

    resumed = _run(folder, "triplets", *ADAPTED, resume=True)

    assert (resumed.checkpoints / "checkpoint-2").is_dir()
    assert (resumed.model / "model.safetensors").read_bytes() == wanted


def test_triplets_are_measured_by_which_text_is_nearer(folder, adapted_run):
    metrics = json.loads(adapted_run.metrics.read_text())
    rows = pyarrow.csv.read_csv(adapted_run.predictions).to_pydict()

    embed = SentenceTransformer(str(adapted_run.model), device="cpu")
    sides = [embed.encode(rows[name], normalize_embeddings=True) for name in ("text_1", "text_2", "negative")]
    nearer = (sides[0] * sides[1]).sum(axis=1) > (sides[0] * sides[2]).sum(axis=1)
    assert metrics["triplet_accuracy"] == pytest.approx(nearer.mean())


def test_texts_beyond_the_positions_of_the_model_are_cut_and_counted(folder):
    encoder = open_encoder(Model(name=str(folder / "decoder")))

    texts = ["день", "зимний лист кружит " * 40]
    assert count_cut_texts(encoder, texts) == 1
    assert encoder.encode(texts).shape == (2, 16)


def test_cut_texts_are_counted_a_portion_at_a_time(folder, monkeypatch):
    encoder = open_encoder(Model(name=str(folder / "decoder")))
    portions, tokenize = [], PreTrainedTokenizerFast.__call__
    monkeypatch.setattr("hf_tasks.data.portions.CHARACTERS_AT_ONCE", 100)
    monkeypatch.setattr(
        PreTrainedTokenizerFast,
        "__call__",
        lambda self, texts, **options: portions.append(len(texts)) or tokenize(self, texts, **options),
    )

    count = count_cut_texts(encoder, ["день", "зимний лист кружит " * 40] * 3)

    assert (count, portions) == (3, [2, 2, 2])


def test_texts_that_static_embeddings_cut_are_counted():
    texts = ["a", "a b c d", "b"]  # words are tokens at least, and of one letter two at most

    encoder = build_static(Static(embedding_size=2, vocab_size=300), texts, max_length=2)

    assert count_cut_texts(encoder, texts) == 1
    assert count_cut_texts(build_static(Static(vocab_size=300), texts, max_length=None), texts) == 0


def test_the_padding_token_is_saved_with_the_model(scored_run):
    saved = load_pair_model(scored_run.model)

    assert saved.encoder.tokenizer.pad_token == END


@pytest.mark.skipif(not transformers.__version__.startswith("4."), reason="transformers 5 has GPT-2 traced")
def test_torchscript_of_a_model_that_cannot_be_traced_is_refused_before_training(folder):
    columns = "{text_1: a, text_2: b, label: score}"
    path = folder / "traced.yaml"
    path.write_text(RECIPE.format(folder=folder, name="traced", columns=columns, more=""), encoding="utf-8")
    shutil.copy(folder / "scores.csv", folder / "traced.csv")

    with pytest.raises(ExportError, match=r"cannot be traced for TorchScript.*leave torchscript out"):
        workflow.run(load_recipe(path, ["export=[torchscript]"]), console=Console(quiet=True))

    assert not list(folder.glob("traced/checkpoints/*"))
