"""The program as a person meets it: exit codes, messages, what it leaves."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import datasets
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, run_program

from hf_tasks import __all__ as public_names
from hf_tasks.workflow.prediction import open_writer

DIGITS = ROOT / "recipes/image_classification/digits.yaml"
HEAVY = "{'torch', 'transformers', 'datasets', 'timm', 'sklearn', 'pandas', 'numpy'}"


def imported_by(statement: str) -> str:
    program = f"import sys\n{statement}\nprint(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout.splitlines()[-1]


def test_the_package_and_the_program_import_nothing_heavy():
    assert imported_by("import hf_tasks, hf_tasks.cli") == "[]"


def test_reading_a_recipe_and_printing_a_schema_import_nothing_heavy():
    statement = (
        f"from hf_tasks.recipe import *; load_recipe({str(DIGITS)!r}); recipe_schema('image-classification')"
    )

    assert imported_by(statement) == "[]"


def test_every_public_name_can_be_had():
    import hf_tasks

    assert all(getattr(hf_tasks, name) for name in public_names)
    with pytest.raises(AttributeError, match="no attribute 'lode_recipe'"):
        _ = hf_tasks.lode_recipe


def test_help_names_the_commands(tmp_path):
    done = run_program("--help", folder=tmp_path)

    commands = {"train", "evaluate", "predict", "recipes", "sample", "schema"}
    assert done.returncode == 0
    assert commands <= set(re.findall(r"^│ (\w+)", done.stdout, flags=re.MULTILINE))


def test_mistakes_of_a_recipe_are_told_together_and_without_a_traceback(tmp_path):
    done = run_program("train", DIGITS, "training.learning_rat=1", "output=[]", folder=tmp_path)

    assert done.returncode == 2
    assert "unknown key, did you mean 'learning_rate'?" in done.stderr
    assert "override 'output=[]': output: found a list, wanted a text" in done.stderr
    assert "Traceback" not in done.stderr


def test_values_that_training_arguments_refuse_are_a_message(digits, tmp_path):
    refused = "training.eval_strategy='no'"

    done = run_program("train", DIGITS, f"output={tmp_path}/run", refused, folder=digits)

    assert done.returncode == 2
    assert "digits.yaml: training: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_table_is_a_message(tmp_path):
    done = run_program("train", DIGITS, folder=tmp_path)

    assert done.returncode == 2
    assert "error: data.train.table: no file data/digits/train_metadata.csv" in done.stderr


def test_a_run_is_not_replaced_unless_that_is_said(digits, digits_run):
    done = run_program("train", DIGITS, folder=digits)

    assert done.returncode == 2
    assert "already holds a run; continue it with --resume, replace it with --overwrite" in done.stderr


def test_a_run_that_is_replaced_comes_back_when_the_new_one_fails_before_a_checkpoint(
    digits, digits_run, tmp_path
):
    shutil.copytree(digits_run, tmp_path / "run")
    before = {path.name for path in (tmp_path / "run").iterdir()}

    broken = ["training.optim=galore_adamw", "training.optim_args=nonsense"]  # is not installed
    done = run_program("train", DIGITS, f"output={tmp_path}/run", *broken, "--overwrite", folder=digits)

    assert done.returncode != 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == before
    assert (tmp_path / "run/metrics.json").read_bytes() == (digits_run / "metrics.json").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_of_other_things_is_never_a_run_folder(digits, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/mother.txt").write_text("dear")

    done = run_program("train", DIGITS, f"output={tmp_path}/letters", "--overwrite", folder=digits)

    assert done.returncode == 2
    assert "is not empty and holds no run" in done.stderr
    assert (tmp_path / "letters/mother.txt").read_text() == "dear"


def test_a_recipe_that_was_refused_may_be_corrected_and_started_in_the_same_folder(digits, tmp_path):
    output, short = f"output={tmp_path}/run", ["training.max_steps=1", "augmentation=none"]
    refused = run_program(
        "train", DIGITS, output, *short, "training.metric_for_best_model=acuracy", folder=digits
    )

    done = run_program("train", DIGITS, output, *short, folder=digits)

    assert refused.returncode == 2
    assert "did you mean 'accuracy'?" in refused.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_check_trains_two_steps_and_keeps_nothing(digits):
    done = run_program("train", DIGITS, "output=runs/tried", "--check", folder=digits)

    assert done.returncode == 0, done.stderr
    assert "check passed" in done.stdout
    assert list((digits / "runs").glob("*tried*")) == []


def test_a_run_ends_with_a_table_and_says_where_the_results_are(digits, multilabel_run):
    done = run_program("evaluate", multilabel_run, "--out", "again", folder=digits, environment={})

    assert done.returncode == 0, done.stderr
    assert "average_precision" in done.stdout
    assert done.stdout.splitlines()[-1] == "results: again  (metrics.json predictions.csv)"
    assert done.stderr == ""


def test_evaluate_repeats_the_figures_of_training(digits, digits_run, tmp_path):
    run_program("evaluate", digits_run, "--out", tmp_path, folder=digits)

    trained, measured = (
        json.loads((folder / "metrics.json").read_text()) for folder in (digits_run, tmp_path)
    )
    assert measured == {name: value for name, value in trained.items() if name != "training"}
    assert (tmp_path / "predictions.csv").read_text() == (digits_run / "predictions.csv").read_text()


def test_evaluate_measures_on_class_folders_too(digits, digits_run, tmp_path):
    """The same 360 pictures, listed from their folders instead of the table."""
    done = run_program("evaluate", digits_run, "--data", "data/digits/test", "--out", tmp_path, folder=digits)

    assert done.returncode == 0, done.stderr
    found, trained = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, digits_run))
    assert found["confusion_matrix"] == trained["confusion_matrix"]
    assert found["loss"] == pytest.approx(trained["loss"], abs=1e-6)


def test_evaluate_measures_on_a_saved_data_set_too(digits, digits_run, tmp_path):
    """The same pictures again, their bytes inside, beside a split that is not asked for."""
    paths = sorted((digits / "data/digits/test").glob("*/*.png"))
    columns = {
        "image": [{"bytes": path.read_bytes(), "path": None} for path in paths],
        "label": [path.parent.name for path in paths],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    rows = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict({"test": rows, "some": rows.select([0])}).save_to_disk(tmp_path / "saved")
    asked = ("evaluate", digits_run, "--data", tmp_path / "saved", "--out", tmp_path / "out")

    unnamed = run_program(*asked, folder=digits)
    named = run_program(*asked, "--split", "test", folder=digits)

    assert "has several splits (test, some); name one with --split" in unnamed.stderr
    assert named.returncode == 0, named.stderr
    found, trained = (
        json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "out", digits_run)
    )
    assert found["confusion_matrix"] == trained["confusion_matrix"]


def test_evaluate_never_writes_over_a_run(digits, digits_run):
    done = run_program("evaluate", digits_run, "--out", digits_run, folder=digits)

    assert done.returncode == 2
    assert "holds a run, whose figures stay" in done.stderr


def test_evaluate_reads_a_table_in_another_encoding(digits, digits_run, tmp_path):
    header, *rows = (digits / "data/digits/test_metadata.csv").read_text().splitlines()
    table = tmp_path / "test.csv"
    table.write_text("\n".join([f"{header},заметка", *(f"{row},да" for row in rows)]), "cp1251")
    arguments = ["--data", table, "--images", "data/digits", "--out", tmp_path / "again"]

    unnamed = run_program("evaluate", digits_run, *arguments, folder=digits)
    named = run_program("evaluate", digits_run, *arguments, "--encoding", "cp1251", folder=digits)

    assert "is not utf-8" in unnamed.stderr
    assert named.returncode == 0, named.stderr


def test_a_full_disk_is_a_message_in_every_command(tmp_path):
    # A limit on the size of files is a full disk to the program.
    command = f"ulimit -f 0; {sys.executable} -m hf_tasks recipes copy multiclass my.yaml"

    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "File too large; make room, or see who may write there" in done.stderr
    assert "Traceback" not in done.stderr


def test_predict_gives_the_rows_that_training_gave(digits, digits_run, tmp_path):
    done = run_program(
        "predict", digits_run, "data/digits/test", "--out", tmp_path / "out.csv", folder=digits
    )

    assert done.returncode == 0, done.stderr
    with (tmp_path / "out.csv").open() as file:
        answers = {row["path"].removeprefix("data/digits/"): row for row in csv.DictReader(file)}
    with (digits_run / "predictions.csv").open() as file:
        trained = {row["path"]: row for row in csv.DictReader(file)}
    assert answers.keys() == trained.keys()
    for path, row in trained.items():
        assert answers[path]["predicted"] == row["predicted"]
        assert float(answers[path]["probability"]) == pytest.approx(float(row["probability"]), abs=1e-5)


def test_a_broken_picture_is_a_row_with_its_error_and_the_rest_go_on(digits, digits_run, tmp_path):
    folder = tmp_path / "снимки"
    folder.mkdir()
    good = sorted((digits / "data/digits/test/3").iterdir())[:3]
    for path in good:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "сломан.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (folder / "notes.txt").write_text("no picture by its ending")

    done = run_program("predict", digits_run, folder, "--out", tmp_path / "out.jsonl", folder=digits)

    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert done.returncode == 2
    assert "1 of 4 inputs could not be answered" in done.stderr
    assert [Path(row["path"]).name for row in rows] == [*(path.name for path in good), "сломан.jpg"]
    assert [row["error"] is None for row in rows] == [True, True, True, False]
    assert rows[-1]["predicted"] is None


def test_all_three_forms_hold_the_same_rows(digits, digits_run, tmp_path):
    for suffix in ("csv", "jsonl", "parquet"):
        run_program(
            "predict", digits_run, "data/digits/test/7", "--out", tmp_path / f"o.{suffix}", folder=digits
        )

    with (tmp_path / "o.csv").open() as file:
        of_csv = [(row["path"], row["predicted"], float(row["probability"])) for row in csv.DictReader(file)]
    of_jsonl, of_parquet = (
        [(row["path"], row["predicted"], row["probability"]) for row in rows]
        for rows in (
            map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines()),
            pq.read_table(tmp_path / "o.parquet").to_pylist(),
        )
    )
    assert of_csv == of_jsonl == of_parquet
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.csv", "o.jsonl", "o.parquet"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_file_name_that_is_not_utf8_is_written_out(digits, digits_run, tmp_path, suffix):
    name = os.fsdecode(b"cut \xff.png")
    shutil.copy(next((digits / "data/digits/test/7").iterdir()), tmp_path / name)
    out = tmp_path / f"o.{suffix}"

    done = run_program("predict", digits_run, tmp_path, "--out", out, folder=digits)

    assert done.returncode == 0, done.stderr
    read = {"csv": pd.read_csv, "jsonl": partial(pd.read_json, lines=True), "parquet": pd.read_parquet}
    assert read[suffix](out)["path"].tolist() == [rf"{tmp_path}/cut \xff.png"]


def test_texts_that_look_like_dates_are_texts_in_parquet(tmp_path):
    row = {"path": "a", "predicted": "2024-01-01", "probability": 0.5, "error": None}
    broken = {"path": "b", "predicted": None, "probability": None, "error": "b: there is no such file"}

    with open_writer(tmp_path / "o.parquet") as write:
        write(row)
        write(broken)

    assert pq.read_table(tmp_path / "o.parquet").to_pylist() == [row, broken]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "x.png", "--out", "o.csv"], "none: no finished run"),
        (["RUN", "x.png", "--out", "o.csv"], "x.png: no such file or folder"),
        (["RUN", "empty", "--out", "o.csv"], "empty: no files here that end in"),
        (["RUN", "x.png", "--out", "o.txt"], "o.txt ends in '.txt'; wanted one of .csv, .jsonl, .parquet"),
        (["RUN", "x.png", "--out", "letter/o.csv"], "letter is a file, wanted a folder"),
        (["RUN", "x.png", "--out", "empty"], "empty ends in ''; wanted one of .csv"),
        (["RUN", "x.png", "--out", "folder.csv"], "folder.csv is a folder; name a file"),
    ],
)
def test_what_predict_cannot_do_is_a_message(digits_run, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "letter").write_text("dear")

    done = run_program(
        "predict", *(digits_run if word == "RUN" else word for word in arguments), folder=tmp_path
    )

    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "o.csv").exists()


def test_a_recipe_is_copied_with_its_schema_and_found_by_its_short_name(tmp_path):
    done = run_program("recipes", "copy", "digits", "mine.yaml", folder=tmp_path)

    assert done.stdout == "written: mine.yaml\n"
    assert (tmp_path / "mine.yaml").read_bytes() == DIGITS.read_bytes()
    assert json.loads((tmp_path / "image-classification.schema.json").read_text())["properties"]["task"]
    assert "exists already" in run_program("recipes", "copy", "digits", "mine.yaml", folder=tmp_path).stderr
    assert "did you mean" in run_program("recipes", "show", "digit", folder=tmp_path).stderr


def test_recipes_list_names_each_file(tmp_path):
    done = run_program("recipes", "list", folder=tmp_path)

    names = [line.rstrip() for line in done.stdout.splitlines() if not line.startswith(" ")]
    folder = ROOT / "recipes"
    assert names == sorted(
        path.relative_to(folder).with_suffix("").as_posix()
        for path in folder.glob("*/*.yaml")
        if path.parent.name != "accelerate"
    )


def test_the_schema_is_json_and_an_unknown_task_a_message(tmp_path):
    done = run_program("schema", "image-classification", folder=tmp_path)
    wrong = run_program("schema", "image-clasification", folder=tmp_path)

    assert json.loads(done.stdout)["properties"]["model"]
    assert wrong.returncode == 2
    assert "did you mean 'image-classification'?" in wrong.stderr


def test_an_unknown_sample_is_a_message(tmp_path):
    done = run_program("sample", "digit", "data", folder=tmp_path)

    assert done.returncode == 2
    assert "no sample 'digit'; wanted one of digits, digits-multilabel" in done.stderr


WITHOUT_TORCH = "import sys; from hf_tasks import cli; sys.modules['torch'] = None; cli.main()"
"""An import of torch would be a traceback."""


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["predict", "runs/nope", "a.png", "--out", "x.csv"], "runs/nope: no finished run"),
        (["evaluate", "runs/nope"], "runs/nope: no finished run"),
        (["report", "runs/nope"], "runs/nope: no finished run"),
        (["export", "runs/nope", "onnxx"], "found 'onnxx', wanted 'onnx'"),
        (["export", "runs/nope", "onnxx"], "runs/nope: no finished run"),
        (["train", DIGITS], "data.train.table: no file data/digits/train_metadata.csv"),
        (["train", DIGITS], "data.validation.table: no file data/digits/test_metadata.csv"),
        (["train", DIGITS, "output=full"], "full is not empty and holds no run"),
        (["train", DIGITS, "output=full/file/run"], "full/file is a file, wanted a folder"),
        (["train", DIGITS, "output=/proc/full/run"], "output: /proc/full/run cannot be written ("),
        (["train", DIGITS, f"output={'long' * 64}"], "cannot be written (File name too long)"),
        (["recipes", "copy", "digits", "long" * 64], "long: File name too long; name another"),
        (
            ["train", "moved/recipe.yaml", "--resume"],
            "output: runs/digits holds no run to resume; the one beside moved/recipe.yaml goes on with "
            "output=moved",
        ),
    ],
)
def test_what_needs_no_torch_is_refused_without_it(tmp_path, arguments, found):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "moved" / "checkpoints").mkdir(parents=True)
    shutil.copy(DIGITS, tmp_path / "moved" / "recipe.yaml")

    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2, done.stderr
    assert found in done.stderr


def test_a_finished_run_is_not_resumed_but_named(digits, digits_run):
    before = {path: path.stat().st_mtime_ns for path in digits_run.rglob("*")}

    done = run_program("train", DIGITS, "--resume", folder=digits)

    assert done.returncode == 0, done.stderr
    assert "runs/digits is finished already: nothing to do" in done.stdout
    assert "--resume training.num_train_epochs=" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in digits_run.rglob("*")} == before


def test_the_list_of_recipes_fits_a_terminal(tmp_path):
    done = run_program("recipes", "list", folder=tmp_path)

    assert max(map(len, done.stdout.splitlines())) <= 80
