"""Indexes of texts: the same files as of pictures, with a text where those have a path."""

import csv
import json

import datasets
import numpy as np
import pytest
from rich.console import Console
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from hf_tasks import workflow
from hf_tasks.cli import app
from hf_tasks.errors import DataError, UserError
from hf_tasks.recipe import load_recipe
from hf_tasks.workflow.index import add_to_index, open_for_search, open_index, remove_from_index, search_index
from hf_tasks.workflow.prediction import how_to_read, predict_files

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

    index = open_for_search(folder / "shelf")
    done = search_index(index, [tmp_path / "new.txt"], tmp_path / "x.csv", count=9, batch_size=1)

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


@pytest.mark.parametrize("encoding", ["cp1251", "utf-16"])
def test_texts_of_another_encoding_are_indexed_searched_scored_and_measured(folder, tmp_path, encoding):
    pairs = "question;answer;label\nжёлтый день;юный лён;0\nжёлтый день;день, и жёлтый;1\n"
    for name, code in (("plain", "utf-8"), ("other", encoding)):
        (tmp_path / f"{name}.csv").write_text(pairs, encoding=code)
        (tmp_path / f"{name}.txt").write_text("лён\n", encoding=code)

    def answers(name, *options):
        table, shelf = tmp_path / f"{name}.csv", tmp_path / f"shelf-{name}"
        said("index", folder / "run", table, "--out", shelf, *options)
        said("search", shelf, tmp_path / f"{name}.txt", "--out", tmp_path / "s.jsonl", *options)
        said("predict", folder / "run", table, "--out", tmp_path / "p.jsonl", *options)
        said("evaluate", folder / "run", "--data", table, "--out", tmp_path / name, *options)
        rows = [
            json.loads(line)
            for file in ("s.jsonl", "p.jsonl")
            for line in (tmp_path / file).read_text(encoding="utf-8").splitlines()
        ]
        figures = json.loads((tmp_path / name / "metrics.json").read_text())["average_precision"]
        return [{**row, "path": None, "table": None} for row in rows], figures

    assert answers("other", "--encoding", encoding) == answers("plain")


def test_another_encoding_that_is_not_named_is_told(folder, tmp_path):
    (tmp_path / "a.csv").write_text("question;answer\nлён;день\n", encoding="cp1251")

    with pytest.raises(DataError, match=r"a\.csv is not utf-8: .* name the encoding .*cp1251"):
        predict_files(folder / "run", [tmp_path / "a.csv"], tmp_path / "x.csv", batch_size=8)


def test_an_encoding_of_nothing_that_has_one_is_refused(folder):
    with pytest.raises(UserError, match="--encoding: only a table or text file given by --data has one"):
        said("evaluate", folder / "run", "--encoding", "cp1251")
    with pytest.raises(UserError, match="--encoding: pictures have none; leave it out"):
        how_to_read("cp1251", holds_texts=False)


def test_pairs_are_measured_from_a_saved_data_set_and_not_from_class_folders(folder, tmp_path):
    pairs = {"question": ["a day", "a day"], "answer": ["a youth", "a day"], "label": [0, 1]}
    datasets.Dataset.from_dict(pairs).save_to_disk(tmp_path / "saved")
    (tmp_path / "empty").mkdir()

    said("evaluate", folder / "run", "--data", tmp_path / "saved", "--out", tmp_path / "out")

    assert json.loads((tmp_path / "out/metrics.json").read_text())["average_precision"] == 1
    with pytest.raises(UserError, match="empty holds no data set, and siamese has no class folders"):
        said("evaluate", folder / "run", "--data", tmp_path / "empty", "--out", tmp_path / "out")


def said(*words):
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


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
        open_for_search(folder / "shelf")
    facts.write_text(kept)
