"""Rows that a trained model is measured on: numbered by the classes that the model itself knows."""

import csv
import shutil

import pytest
from PIL import Image

from hf_tasks.data.sources import FolderSource, TableSource
from hf_tasks.errors import DataError
from hf_tasks.images.backbone import open_weights
from hf_tasks.tasks.image_classification.data import prepare_rows, prepare_splits
from hf_tasks.tasks.image_classification.model import build_classifier
from hf_tasks.tasks.image_classification.settings import Columns, Settings
from hf_tasks.tasks.image_classification.task import rows_for

pytestmark = pytest.mark.usefixtures("own_cache")


def model_for(class_names):
    opened = open_weights("test_vit.r160_in1k", pretrained=False, weights=None, image_size=None)
    return build_classifier(opened, class_names=class_names, is_multilabel=False, drop_rate=0.0)


@pytest.fixture(scope="module")
def model():
    return model_for(("a", "b"))


@pytest.fixture
def folder(tmp_path):
    """Pictures 0.png to 19.png."""
    (tmp_path / "images").mkdir()
    for number in range(20):
        Image.new("L", (4, 4), 9 * number).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def write_table(path, labels, *, column="label"):
    rows = [[f"images/{number}.png", label] for number, label in enumerate(labels)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image_path", column], *rows])
    return {"table": str(path)}


def settings_of(data) -> Settings:
    return Settings.model_validate({"data": data, "model": {"name": "any"}})


def test_the_classes_are_kept_in_the_models_own_configuration(folder):
    train = write_table(folder / "train.csv", ["кот", "пёс", "10"] * 4)

    model = model_for(prepare_splits(settings_of({"train": train})).class_names)

    assert model.config.id2label == {0: "10", 1: "кот", 2: "пёс"}
    assert model.config.label2id == {"10": 0, "кот": 1, "пёс": 2}


def test_rows_for_a_trained_model_are_numbered_as_the_model_numbers(folder):
    write_table(folder / "a.csv", "ccb")
    source = TableSource(table=str(folder / "a.csv"))

    rows = prepare_rows(source, Columns(), class_names=("c", "b", "a"), is_multilabel=False)

    assert rows["label"][:] == [0, 0, 1]


@pytest.mark.parametrize(
    ("is_multilabel", "labels", "wanted"), [(True, None, "labels"), (False, ["a"], "label")]
)
def test_columns_must_fit_the_trained_model(folder, is_multilabel, labels, wanted):
    write_table(folder / "a.csv", "ab")

    with pytest.raises(DataError, match=rf"data\.columns: the model was trained with `{wanted}`; name"):
        prepare_rows(
            TableSource(table=str(folder / "a.csv")),
            Columns(labels=labels),
            class_names=("a", "b"),
            is_multilabel=is_multilabel,
        )


def test_a_saved_model_is_measured_on_the_rows_that_were_split_off(folder, model):
    settings = settings_of({"train": write_table(folder / "a.csv", "ab" * 10)})

    rows = rows_for(settings, None, model)

    assert rows.train is None
    assert rows.validation["row"][:] == prepare_splits(settings).validation["row"][:]


def test_a_saved_model_is_not_measured_by_classes_that_have_changed_since(folder, model):
    settings = settings_of({"train": write_table(folder / "a.csv", "bc" * 10)})

    with pytest.raises(DataError, match=r"not those the model was trained with \(a, c\); .* train anew"):
        rows_for(settings, None, model)


def test_a_saved_model_is_measured_on_class_folders_whatever_the_column_is_called(folder, model):
    (folder / "classes" / "b").mkdir(parents=True)
    shutil.copy(folder / "images" / "9.png", folder / "classes" / "b")
    train = write_table(folder / "a.csv", "ab" * 10, column="kind")
    settings = settings_of({"train": train, "columns": {"label": "kind"}})

    rows = rows_for(settings, FolderSource(folder=str(folder / "classes")), model)

    assert rows.validation.select_columns(["path", "label"]).to_list() == [{"path": "b/9.png", "label": 1}]
