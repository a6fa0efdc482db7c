"""The check of a recipe: every planted fault is found at once, and the cleaned copy trains."""

import csv
import json
import re

import pytest
from conftest import ROOT, run_program
from planted_faults import EXPECTED, write_planted

from hf_tasks.data.labels import UNSEEN

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The folder of the planted pictures, checked once with --fix and --json."""
    folder = tmp_path_factory.mktemp("planted")
    write_planted(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = run_program("check", "recipe.yaml", "--fix", "clean", "--json", folder=folder)
    return folder, before, done


def test_every_planted_fault_is_found_and_nothing_else(planted):
    _, _, done = planted

    document = json.loads(done.stdout)

    found = {
        (finding["severity"], finding["kind"]): [
            f"{row['section']} row {row['row']}" for row in finding["rows"]
        ]
        or finding["examples"]
        for finding in document["findings"]
    }
    assert found == EXPECTED
    assert document["ok"] is False
    assert done.returncode == 2
    assert document["looked_at"] == {"train": {"rows": 36, "of": 36}, "validation": {"rows": 9, "of": 9}}


def test_the_trial_runs_beside_the_faults_and_tells_what_training_needs(planted):
    needs = json.loads(planted[2].stdout)["needs"]

    assert needs["steps"] == 8  # 2 epochs of the 31 rows that are not refused, in batches of 8
    assert 0 < needs["seconds_per_step"] < needs["seconds"]
    assert 50e6 < needs["memory_bytes"] < needs["memory_there"]
    assert 0 < needs["disk_bytes"] < needs["disk_free"]


def test_the_document_has_the_fields_that_are_documented(planted):
    described = set(re.findall(r"`((?:findings\[\]|needs)?\.?\w+)`", (ROOT / "docs/check.md").read_text()))

    document = json.loads(planted[2].stdout)

    [finding, *_] = document["findings"]
    fields = {*document, *(f"findings[].{name}" for name in finding), *finding["rows"][0]}
    fields |= {f"needs.{name}" for name in document["needs"]} | {*document["looked_at"]["train"]}
    assert document["version"] == 1
    assert fields <= described
    assert {name for name in described if "." in name} <= fields


def test_names_that_steer_a_terminal_are_escaped_in_the_document(planted):
    name = "gone\N{RIGHT-TO-LEFT OVERRIDE}\x9b31m.csv"
    overrides = [f"data.train.table={json.dumps(name)}"]

    done = run_program("check", "recipe.yaml", *overrides, "--json", folder=planted[0])

    told = "".join(text for finding in json.loads(done.stdout)["findings"] for text in finding["examples"])
    assert done.stdout.isascii()
    assert name in told


def test_nothing_of_the_users_is_changed(planted):
    folder, before, _ = planted

    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert {path: after[path] for path in before} == before
    assert {path.relative_to(folder).parts[0] for path in after.keys() - before.keys()} == {"clean"}


def test_every_row_that_is_left_out_has_its_reason(planted):
    folder = planted[0]

    with (folder / "clean/left_out.csv").open() as file:
        dropped = {(row["section"], int(row["row"])): row["reason"] for row in csv.DictReader(file)}
    with (folder / "clean/mended.csv").open() as file:
        mended = [(row["section"], row["row"], row["label"]) for row in csv.DictReader(file)]

    wanted = [19, 21, 22, 23, 24, 31, 32, 33, 34]
    assert list(dropped) == [*(("train", row) for row in wanted), ("validation", 8)]
    assert dropped["train", 33] == "the same pictures to train on and to measure on"
    assert mended == [("train", "20", "class1"), ("validation", "7", "class1")]


def test_the_cleaned_copy_trains(planted):
    folder = planted[0]

    done = run_program("train", "clean/recipe.yaml", "output=trained", "training.max_steps=2", folder=folder)

    assert done.returncode == 0, done.stderr
    data = json.loads((folder / "trained/data.json").read_text())
    assert (data["train"]["rows"], data["validation"]["rows"]) == (27, 8)


def test_the_cleaned_copy_has_no_error_left(planted):
    done = run_program("check", "clean/recipe.yaml", folder=planted[0])

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "error" not in {line.split("│")[1].strip() for line in lines if line.startswith("│")}
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "found: 0 errors, 10 warnings, 2 notes"


def test_a_fix_never_writes_into_a_folder_that_holds_something(planted):
    done = run_program("check", "recipe.yaml", "--fix", "pictures", folder=planted[0])

    assert done.returncode == 2
    assert "pictures is not empty; nothing was touched" in done.stderr


def test_all_mistakes_of_a_recipe_are_one_finding_of_the_document(tmp_path):
    (tmp_path / "recipe.yaml").write_text("task: siamese\nmodle: {}\noutput: []\n")

    done = run_program("check", "recipe.yaml", "--json", folder=tmp_path)

    [finding] = json.loads(done.stdout)["findings"]
    assert done.returncode == 2
    assert finding["kind"] == "mistakes in the recipe"
    assert any("recipe.yaml:2: modle: unknown key" in line for line in finding["examples"])
    assert any("recipe.yaml:3: output: found a list" in line for line in finding["examples"])


def test_rows_that_cannot_be_used_are_skipped_where_the_recipe_says_so_and_never_in_silence(planted):
    overrides = ["on_bad_example=skip", "output=skipping", "training.max_steps=2"]
    # Spellings that look alike are no faults of single rows.
    for name in ("train", "validation"):
        table = (
            (planted[0] / f"{name}.csv").read_text().replace(" class1", "class1").replace("class1 ", "class1")
        )
        (planted[0] / f"spelt_{name}.csv").write_text(table)
        overrides.append(f"data.{name}={{table: spelt_{name}.csv, images: pictures}}")

    done = run_program("train", "recipe.yaml", *overrides, folder=planted[0])

    assert done.returncode == 0, done.stderr
    assert "skipped: 5 of data.train and 1 of data.validation, which cannot be used" in done.stdout
    data = json.loads((planted[0] / "skipping/data.json").read_text())
    reasons = {(row["section"], row["row"]): row["reason"] for row in data["skipped"]}
    assert list(reasons) == [*(("train", row) for row in (19, 21, 22, 23, 24)), ("validation", 8)]
    assert reasons["train", 19] == "no label"
    assert reasons["train", 22] == "no content"
    assert reasons["train", 23].endswith("the file is cut off")
    assert reasons["validation", 8] == "label 'class9', which no training row has"
    assert (data["train"]["rows"], data["validation"]["rows"]) == (31, 8)
    again = run_program("evaluate", "skipping", "--out", "again", folder=planted[0])
    assert again.returncode == 0, again.stderr


def test_faults_that_are_skipped_are_no_errors_of_the_check(planted):
    done = run_program("check", "clean/recipe.yaml", "data.train.table=train.csv", "on_bad_example=skip",
                       "data.validation.table=clean/validation.csv", "--json", folder=planted[0])  # fmt: skip

    severities = {finding["kind"]: finding["severity"] for finding in json.loads(done.stdout)["findings"]}
    assert severities["rows without a label"] == "warning"
    assert severities["pictures that cannot be decoded"] == "warning"
    assert [kind for kind, severity in severities.items() if severity == "error"] == [
        f"labels that differ from a class only in {UNSEEN}"
    ]
