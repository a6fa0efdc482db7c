"""The check of recipes for texts: planted faults are found, and the cleaned copy trains."""

import csv
import json
import re

import pytest
from conftest import run_program

PAIRS = """\
task: siamese
output: runs/pairs
data: {train: {table: train.csv}, validation: {table: validation.csv}}
model: {static: {embedding_size: 8, vocab_size: 300}, max_length: 16}
training: {max_steps: 2, per_device_train_batch_size: 4, use_cpu: true}
report: {mlflow: {experiment: pairs}, tensorboard: true}
export: [onnx, torchscript]
"""
LANGUAGE = """\
task: language-model
output: runs/words
data: {train: {text: train.txt}, validation: {text: validation.txt}}
model: {from_scratch: {hidden_size: 16, layers: 1, heads: 2, block_size: 16, vocab_size: 300}}
training: {max_steps: 2, per_device_train_batch_size: 2, use_cpu: true}
"""

pytestmark = pytest.mark.slow


def told(document: dict) -> dict[tuple[str, str], list[str]]:
    return {
        (finding["severity"], finding["kind"]): [f"{row['section']} {row['row']}" for row in finding["rows"]]
        or finding["examples"]
        for finding in document["findings"]
    }


def write_pairs(folder) -> None:
    rows = {
        "train": [(f"day {n} of rain", f"{n} wet days", str(int(n not in (4, 6)))) for n in range(1, 9)],
        "validation": [(f"night {n} of snow", f"{n} cold nights", str(int(n != 2))) for n in range(1, 7)],
    }
    rows["train"] += [
        ("sun", " ", "1"), ("sun", "shine", "2"), ("sun", "shines", ""), ("Fog", "fog ", "1"),
        ("3 WET  days", "day 3 of rain", "1"), ("day 4 of rain", "4 wet days", "1"),
        ("night 1 of snow", "1 cold nights", "1"), ("cafÃ©", "coffee", "1"),
        ("wind " * 20, "gale", "1"),  # a token a word at least; the other texts are of 16 bytes at most
    ]  # fmt: skip
    rows["train"] += [(f"week {n} of fog", f"{n} gray weeks", "1") for n in range(13)]
    rows["validation"] += [("day 8 of rain", "a new text", "1")]
    for name, table in rows.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text_1", "text_2", "label"), *table])
    (folder / "recipe.yaml").write_text(PAIRS)


def write_documents(folder) -> None:
    lines = [f"the {n}th day had {n % 3} hours of rain and {n % 7} of sun" for n in range(60)]
    text = "\n".join([*lines, lines[3].upper(), "cafÃ© au lait", "held out 5", ""])
    (folder / "train.txt").write_bytes(text.encode() + "un café".encode("latin-1"))
    (folder / "validation.txt").write_text("\n".join(f"Held  out {n}" for n in range(40)))
    (folder / "recipe.yaml").write_text(LANGUAGE)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder)
    return folder, run_program("check", "recipe.yaml", "--fix", "clean", "--json", folder=folder)


def test_every_planted_fault_of_pairs_is_found(pairs):
    found = told(json.loads(pairs[1].stdout))

    assert found == {
        ("error", "rows without a text"): ["train 9"],
        ("error", "labels that are neither 0, 1 nor a score between"): ["train 10", "train 11"],
        ("warning", "texts that were decoded wrongly"): ["train 16"],
        ("warning", "pairs of one and the same text"): ["train 12"],
        ("warning", "the same pairs with different labels"): ["train 4", "train 14"],
        ("warning", "the same pairs to train on and to measure on"): ["train 15"],
        ("warning", "pairs that stand there again"): ["train 13"],
        ("warning", "texts to train on and to measure on, in other pairs"): [
            "'night 1 of snow'", "'1 cold nights'", "'day 8 of rain'",
        ],
        ("warning", "one label is 10 times as common as the other"): ["0: 3, 1: 32"],
        ("note", "texts above 16 tokens, which are cut"): ["train 17"],
    }  # fmt: skip
    assert json.loads(pairs[1].stdout)["needs"]["steps"] == 2
    assert pairs[1].returncode == 2


def test_a_trial_that_reports_leaves_nothing_where_the_run_will_report(pairs):
    assert {path.name for path in pairs[0].iterdir()} == {
        "clean", "recipe.yaml", "runs", "train.csv", "validation.csv",
    }  # fmt: skip
    assert not [*(pairs[0] / "runs").iterdir()]


def test_the_cleaned_pairs_train(pairs):
    done = run_program("train", "clean/recipe.yaml", "report={}", "export=[]", folder=pairs[0])

    assert done.returncode == 0, done.stderr
    assert json.loads((pairs[0] / "runs/pairs/data.json").read_text())["train"]["rows"] == 30 - 7


def test_pairs_that_cannot_be_used_are_skipped_where_the_recipe_says_so(pairs):
    overrides = ["on_bad_example=skip", "output=skipping", "report={}", "export=[]"]

    done = run_program("train", "recipe.yaml", *overrides, folder=pairs[0])

    assert done.returncode == 0, done.stderr
    assert "skipped: 3 of data.train, which cannot be used" in done.stdout
    skipped = json.loads((pairs[0] / "skipping/data.json").read_text())["skipped"]
    assert [(row["row"], row["reason"]) for row in skipped] == [
        (9, "no text in column 'text_2'"), (10, "label '2'"), (11, "no label"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    write_documents(folder)
    return folder, run_program("check", "recipe.yaml", "--fix", "clean", "--json", folder=folder)


def test_every_planted_fault_of_documents_is_found(documents):
    assert told(json.loads(documents[1].stdout)) == {
        ("error", "documents that cannot be decoded"): ["train 64"],
        ("warning", "texts that were decoded wrongly"): ["train 62"],
        ("warning", "the same documents to train on and to measure on"): ["train 63"],
        ("warning", "documents that stand there again"): ["train 61"],
    }
    assert json.loads(documents[1].stdout)["needs"]["steps"] == 2
    assert documents[1].returncode == 2


def test_the_cleaned_documents_train(documents):
    done = run_program("train", "clean/recipe.yaml", folder=documents[0])

    assert done.returncode == 0, done.stderr
    assert json.loads((documents[0] / "runs/words/data.json").read_text())["train"]["rows"] == 61


def test_documents_that_cannot_be_used_are_skipped_where_the_recipe_says_so(documents):
    done = run_program("train", "recipe.yaml", "on_bad_example=skip", "output=skipping", folder=documents[0])

    assert done.returncode == 0, done.stderr
    assert "skipped: 1 of data.train, which cannot be used" in done.stdout
    facts = json.loads((documents[0] / "skipping/data.json").read_text())
    assert facts["skipped"] == [{"section": "train", "row": 64, "reason": "line 64: byte 0xe9 is not utf-8"}]
    assert facts["train"]["rows"] == 63


def test_blank_cells_are_found_with_their_rows_and_the_trial_tries_each_export(documents):
    folder = documents[0]
    lines = (folder / "train.txt").read_text(errors="ignore").splitlines()[:30]
    (folder / "cells.jsonl").write_text("".join(f"{json.dumps({'text': line})}\n" for line in [*lines, " "]))

    overrides = ["data.train={table: cells.jsonl}", "export={formats: [onnx], tolerance: {difference: 0.0}}"]
    done = run_program("check", "recipe.yaml", *overrides, "--json", folder=folder)

    found = told(json.loads(done.stdout))
    [export] = found.pop(("error", "the trial fails"))
    assert re.match(r"export: onnx: outputs differ by up to .* \(allowed 0\)", export)  # so it was tried
    assert found == {("error", "rows without a text"): ["train 31"]}
