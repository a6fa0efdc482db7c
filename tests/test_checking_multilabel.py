"""The check of pictures with several classes: cells, tags and pictures are told with their rows."""

import csv
import json

import pytest
from conftest import run_program
from pictures import write_class_pictures

from hf_tasks.data.cleaning import places_without, write_rows
from hf_tasks.data.labels import UNSEEN
from hf_tasks.tasks.image_classification.examine import examine
from hf_tasks.tasks.image_classification.settings import Settings
from hf_tasks.workflow.checking import left_out, new_labels

RECIPE = """\
task: image-classification
output: runs/tags
data:
  train: {table: train.csv, images: pictures}
  validation: {table: validation.csv, images: pictures}
  columns: {labels: [red, round]}
model: {name: test_resnet, pretrained: false, image_size: 32}
training: {max_steps: 2, per_device_train_batch_size: 4, use_cpu: true, dataloader_num_workers: 0}
"""


def write_table(path, header, rows) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("image_path", *header), *rows])


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Pictures of two columns of 0 and 1, checked once with --fix and --json."""
    folder = tmp_path_factory.mktemp("multilabel")
    write_class_pictures(folder / "pictures", classes=3, per_class=8)
    (folder / "pictures/cut.png").write_bytes((folder / "pictures/class0/0.png").read_bytes()[:-300])
    (folder / "pictures/leak.png").write_bytes((folder / "pictures/class0/6.png").read_bytes())
    cells = {"class0": (1, 0), "class1": (0, 1), "class2": (1, 1)}
    rows = {
        part: [(f"{name}/{number}.png", *cells[name]) for name in cells for number in numbers]
        for part, numbers in {"train": range(6), "validation": (6, 7)}.items()
    }
    rows["train"][4:7] = [
        ("class0/4.png", "maybe", 0), ("class0/5.png", 1, ""), ("class1/0.png", "True", "0.0"),
    ]  # fmt: skip
    rows["train"] += [("cut.png", 1, 0), ("leak.png", 1, 0)]
    for name, table in rows.items():
        write_table(folder / f"{name}.csv", ("red", "round"), table)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder, run_program("check", "recipe.yaml", "--fix", "clean", "--json", folder=folder)


@pytest.mark.slow
def test_every_planted_fault_of_several_classes_is_found(planted):
    document = json.loads(planted[1].stdout)

    assert {
        (finding["severity"], finding["kind"]): [(row["section"], row["row"]) for row in finding["rows"]]
        for finding in document["findings"]
    } == {
        ("error", "label cells that are neither 0 nor 1"): [("train", 5), ("train", 6)],
        ("error", "pictures that cannot be decoded"): [("train", 19)],
        ("warning", "the same pictures to train on and to measure on"): [("train", 20)],
    }
    [cells, *_] = document["findings"]
    assert [row["text"] for row in cells["rows"]] == [
        "class0/4.png: column 'red': 'maybe'", "class0/5.png: column 'round': nothing",
    ]  # fmt: skip
    assert document["needs"]["steps"] == 2


@pytest.mark.slow
def test_the_cleaned_copy_of_several_classes_trains(planted):
    done = run_program("train", "clean/recipe.yaml", folder=planted[0])

    assert done.returncode == 0, done.stderr
    assert json.loads((planted[0] / "runs/tags/data.json").read_text())["train"]["rows"] == 20 - 4


@pytest.mark.slow
def test_rows_whose_cells_cannot_be_read_are_skipped_where_the_recipe_says_so(planted):
    done = run_program("train", "recipe.yaml", "on_bad_example=skip", "output=skipping", folder=planted[0])

    assert done.returncode == 0, done.stderr
    skipped = json.loads((planted[0] / "skipping/data.json").read_text())["skipped"]
    assert {row["row"]: row["reason"].rpartition("picture: ")[2] for row in skipped} == {
        5: "column 'red': 'maybe'", 6: "column 'round': nothing", 19: "the file is cut off",
    }  # fmt: skip


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_tags_are_spelt_anew_beside_others_of_their_row(tmp_path, ending):
    write_class_pictures(tmp_path / "pictures", classes=1, per_class=4)
    tags = (["red", "round"], ["red"], ["red ", "round"], ["red "])
    names = [f"class0/{number}.png" for number in range(4)]
    table = tmp_path / f"train.{ending}"
    if ending == "csv":
        write_table(table, ("tags",), [(name, "|".join(of)) for name, of in zip(names, tags, strict=True)])
    else:
        rows = [{"image_path": name, "tags": of} for name, of in zip(names, tags, strict=True)]
        table.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    train = {"table": str(table), "images": str(tmp_path / "pictures")}
    data = {"train": train, "columns": {"labels": "tags"}}

    found = examine(Settings(data=data, model={"name": "test_resnet", "image_size": 32}), True, 0)

    source, labels = found.sources["train"], new_labels(found, "train")
    kept = places_without(4, left_out(found.findings, "train"))
    cleaned = write_rows(source, tmp_path / "clean/train", kept=kept, labels=labels)
    data["train"] = cleaned
    again = examine(Settings(data=data, model={"name": "test_resnet", "image_size": 32}), True, 0)
    kind = f"labels that differ from a class only in {UNSEEN}"
    assert [row.number for row in next(of for of in found.findings if of.kind == kind).rows] == [3, 4]
    assert labels == {2: "red|round", 3: "red"}
    assert kept == [0, 1, 2, 3]
    assert "error" not in {finding.severity for finding in again.findings}
    assert again.sources["train"].rows["tags"][2] == ("red|round" if ending == "csv" else ["red", "round"])
