"""Indexes of texts: the same files as of pictures, with a text where those have a path."""

import csv
import json

import numpy as np
import pytest
from rich.console import Console
from sentence_transformers import SentenceTransformer

from hf_tasks import workflow
from hf_tasks.errors import DataError, UserError
from hf_tasks.recipe import load_recipe
from hf_tasks.workflow.index import add_to_index, open_index, remove_from_index, search_index

RECIPE = """\
task: siamese
output: {folder}/run
data:
  train: {{table: {folder}/pairs.csv}}
  validation: {{table: {folder}/pairs.csv}}
  columns: {{text_1: question, text_2: answer}}
model: {{static: {{embedding_size: 32, vocab_size: 400}}}}
training:
  {{max_steps: 2, eval_strategy: steps, eval_steps: 2, save_strategy: steps, save_steps: 2, use_cpu: true}}
"""
TEXTS = ["the red apple", "the green pear", "赤い 梨", "a plum, or two", "the red cherry"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, and an index of the texts of a table in `shelf`."""
    folder = tmp_path_factory.mktemp("texts")
    pairs = [
        (f"{one} {row}", f"{other} {row}", int(one == other))
        for row, one in enumerate(TEXTS)
        for other in TEXTS
    ]
    _write(folder / "pairs.csv", [("question", "answer", "label"), *pairs])
    _write(folder / "texts.csv", [("text", "number"), *zip(TEXTS, range(5), strict=True)])
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
    workflow.run(load_recipe(folder / "recipe.yaml"), console=Console(quiet=True))
    add_to_index(folder / "shelf", folder / "run", [folder / "texts.csv"], batch_size=2)
    return folder


def _write(path, rows, **options):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, **options).writerows(rows)


def _read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_an_index_of_texts_holds_what_sentence_transformers_gives_and_the_models_threshold(folder):
    index = open_index(folder / "shelf")

    encoder = SentenceTransformer(str(folder / "run/model"), device="cpu")
    threshold = json.loads((folder / "run/model/pairs.json").read_text())["threshold"]
    assert (index.kind, index.entries) == ("text", tuple(TEXTS))
    np.testing.assert_allclose(
        index.embeddings_ND, encoder.encode(TEXTS, normalize_embeddings=True), atol=1e-6
    )
    assert index.cutoff_distance == pytest.approx(1 - threshold)


def test_neighbours_of_lines_are_those_of_a_whole_sort(folder, tmp_path):
    (tmp_path / "new.txt").write_text("the red pear\n\n赤い 李\n", encoding="utf-8")

    done = search_index(folder / "shelf", [tmp_path / "new.txt"], tmp_path / "x.csv", count=9, batch_size=1)

    encoder = SentenceTransformer(str(folder / "run/model"), device="cpu")
    queries = ["the red pear", "赤い 李"]
    distances = 1 - encoder.similarity(encoder.encode(queries), encoder.encode(TEXTS)).numpy()
    rows = _read(tmp_path / "x.csv")
    assert done == (2, 0)
    assert [row["text"] for row in rows] == queries
    for row, order, distances_N in zip(rows, distances.argsort(axis=1), distances, strict=True):
        assert [row[f"neighbour_{place}"] for place in range(1, 6)] == [TEXTS[number] for number in order]
        found = [float(row[f"distance_{place}"]) for place in range(1, 6)]
        np.testing.assert_allclose(found, distances_N[order], atol=1e-6)
        index = open_index(folder / "shelf")
        assert row["is_accepted"] == str(bool(found[0] <= index.cutoff_distance))


def test_both_columns_of_a_table_of_pairs_are_read_and_empty_texts_told(folder, tmp_path):
    _write(tmp_path / "more.csv", [("question", "answer"), ("one", "two"), ("", "three")], delimiter=";")

    added, broken = add_to_index(tmp_path / "shelf", folder / "run", [tmp_path / "more.csv"], batch_size=8)

    assert added == 3
    assert open_index(tmp_path / "shelf").entries == ("one", "two", "three")
    assert [row["error"] for row in broken] == [f"{tmp_path / 'more.csv'}: row 2: the text is missing"]


def test_texts_are_removed_by_themselves_and_by_the_folder_of_their_file(folder, tmp_path):
    (tmp_path / "gallery/fruit").mkdir(parents=True)
    (tmp_path / "gallery/fruit/a.txt").write_text("apple\npear\n")
    (tmp_path / "gallery/b.txt").write_text("stone\nwater\n")
    add_to_index(tmp_path / "shelf", folder / "run", [tmp_path / "gallery"], batch_size=8)

    removed = remove_from_index(tmp_path / "shelf", ["fruit", "stone"])

    assert removed == 3
    assert open_index(tmp_path / "shelf").entries == ("water",)


def test_a_table_whose_texts_could_be_in_several_columns_is_refused(folder, tmp_path):
    _write(tmp_path / "odd.csv", [("title", "body"), ("a", "b")])

    with pytest.raises(
        DataError, match=r"which column holds the texts\? It has title, body; name it 'text', or"
    ):
        add_to_index(tmp_path / "shelf", folder / "run", [tmp_path / "odd.csv"], batch_size=8)


def test_another_threshold_is_another_model(folder, tmp_path):
    facts = folder / "run/model/pairs.json"
    kept = facts.read_text()
    facts.write_text(kept.replace('"threshold": ', '"threshold": 0'))

    with pytest.raises(UserError, match="made by another model"):
        search_index(folder / "shelf", [folder / "texts.csv"], tmp_path / "x.csv", count=1, batch_size=8)
    facts.write_text(kept)
