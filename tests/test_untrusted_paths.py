"""Tables, data sets and links of others cannot make a run read pictures from elsewhere."""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import run_program
from pictures import write_class_pictures

from hf_tasks.data.load import load_rows
from hf_tasks.data.sources import FolderSource, HubSource, TableSource
from hf_tasks.errors import DataError

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def shelf(tmp_path) -> Path:
    """`data/pictures`, which a recipe names, and `secret`, which it does not."""
    write_class_pictures(tmp_path / "data/pictures", classes=2, per_class=3)
    write_class_pictures(tmp_path / "secret", classes=1, per_class=1)
    return tmp_path


def write_table(folder: Path, *paths: object) -> TableSource:
    table = folder / "data/table.csv"
    table.write_text("".join(["image_path,label\n", *(f"{path},x\n" for path in paths)]))
    return TableSource(table=str(table), images=str(folder / "data/pictures"))


def refusal(source, **options) -> str:
    with pytest.raises(DataError, match=r"outside .*data\.allow_outside: true") as refused:
        load_rows(source, key="data.train", **options)
    return str(refused.value)


def test_dots_and_absolute_paths_that_lead_out_are_refused_with_their_rows(shelf):
    secret = shelf / "secret/class0/0.png"
    source = write_table(
        shelf, "class0/0.png", "../../secret/class0/0.png", secret, "class0/../../x.png", "..",
        "../pictures_of_others/x.png",
    )  # fmt: skip

    message = refusal(source)

    assert message.splitlines()[0].startswith(
        f"data.train ({source.table}): pictures outside {source.images}: 5; name the folder that holds them"
    )
    assert [line.split(",")[0] for line in message.splitlines()[1:]] == [
        "  row 2", "  row 3", "  row 4", "  row 5", "  row 6"
    ]  # fmt: skip
    assert f"row 3, {secret}" in message


def test_all_rows_are_counted_and_ten_shown(shelf):
    message = refusal(write_table(shelf, *["/etc/passwd"] * 3000))

    assert ": 3000; " in message
    assert message.splitlines()[10:] == ["  row 10, /etc/passwd", "  and 2990 more"]


def test_paths_that_stay_inside_are_taken_however_they_are_written(shelf):
    (shelf / "data/pictures/again").symlink_to(shelf / "data/pictures/class1")
    (shelf / "linked").symlink_to(shelf / "data/pictures")
    paths = [
        "class0/0.png", "class0/../class1/0.png", shelf / "data/pictures/class0/1.png", "again/2.png",
        shelf / "linked/class0/2.png", "not/there.png", "", "nul\0.png",
    ]  # fmt: skip
    source = write_table(shelf, *paths)

    plain = load_rows(source)
    through_link = load_rows(source.model_copy(update={"images": str(shelf / "linked")}))

    assert len(plain) == len(through_link) == len(paths)


def test_links_that_lead_out_are_refused_in_tables_and_class_folders(shelf):
    secret = shelf / "secret/class0/0.png"
    (shelf / "data/pictures/class0/innocent.png").symlink_to(secret)
    (shelf / "data/pictures/class2").symlink_to(shelf / "secret/class0")

    of_table = refusal(write_table(shelf, "class0/0.png", "class0/innocent.png", "class2/0.png"))
    of_folder = refusal(FolderSource(folder=str(shelf / "data/pictures")))

    assert f"row 2, class0/innocent.png, leads to {secret}\n  row 3, class2/0.png" in of_table
    assert ": 2; " in of_folder


def test_a_data_set_of_others_cannot_name_files_of_this_machine(shelf):
    folder = shelf / "downloaded"
    folder.mkdir()
    secret = str(shelf / "secret/class0/0.png")
    pictures = [{"bytes": None, "path": secret}, {"bytes": Path(secret).read_bytes(), "path": secret}]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(
        pa.table({"image": pa.array(pictures, kind), "label": ["x", "y"]}), folder / "train.parquet"
    )

    of_hub = refusal(HubSource(hub=str(folder)), image_column="image")
    of_table = refusal(TableSource(table=str(folder / "train.parquet")), image_column="image")

    assert ": 1; " in of_hub
    assert ": 1; " in of_table


def test_the_key_of_the_recipe_takes_what_lies_elsewhere(shelf):
    source = write_table(shelf, "../../secret/class0/0.png")

    rows = load_rows(source, allow_outside=True)

    assert os.path.samefile(rows[0]["image"]["path"], shelf / "secret/class0/0.png")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["image-classification", "metric-learning"])
def test_train_check_and_prepare_hold_to_the_key(shelf, task):
    shutil.copy(shelf / "secret/class0/0.png", shelf / "data/pictures/class0/3.png")
    pictures = sorted((shelf / "data/pictures").rglob("*.png"))
    rows = [f"{path},{path.parent.name}\n" for path in pictures]
    (shelf / "data/table.csv").write_text("".join(["image_path,label\n", *rows]))
    (shelf / "data/elsewhere").mkdir()
    source = {"table": "data/table.csv", "images": "data/elsewhere"}
    recipe = {
        "task": task,
        "output": "run",
        "data": {"train": source, "validation": source},
        "model": {"name": "test_vit", "pretrained": False, "image_size": 32},
    }
    (shelf / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    trained = run_program("train", "recipe.yaml", folder=shelf)
    prepared = run_program("prepare", "recipe.yaml", folder=shelf)
    checked = run_program("check", "recipe.yaml", "--json", folder=shelf)
    allowed = run_program("prepare", "recipe.yaml", "data.allow_outside=true", folder=shelf)

    for refused in (trained, prepared):
        assert refused.returncode == 2
        assert f"pictures outside {shelf}/data/elsewhere: 7; " in refused.stderr
    kinds = [finding["kind"] for finding in json.loads(checked.stdout)["findings"]]
    assert checked.returncode == 2
    assert any("data.train cannot be used" in kind for kind in kinds)
    assert allowed.returncode == 0, allowed.stderr
