"""Which columns are meant, and what is said when they are not there."""

import pytest
from datasets import Features, Image, Value

from hf_tasks.data.columns import picture_column, require_columns, require_free_names
from hf_tasks.errors import DataError

TEXT = Value("string")
RAW = {"bytes": Value("binary"), "path": TEXT}


def test_all_missing_columns_are_told_at_once_with_the_nearest():
    wanted = {"label": "lable", "image": "photo", "id": "id"}

    with pytest.raises(DataError, match="no column") as refused:
        require_columns(wanted, ["id", "image_path", "label"], where="a.csv")

    assert str(refused.value).splitlines() == [
        "label: no column 'lable' in a.csv (it has id, image_path, label); did you mean 'label'?",
        "image: no column 'photo' in a.csv (it has id, image_path, label)",
    ]


def test_spaces_around_a_name_are_shown_by_the_nearest():
    with pytest.raises(DataError, match=r"no column 'label' in a\.csv .*; did you mean ' label'\?"):
        require_columns({"data.columns.label": "label"}, ["image_path", " label"], where="a.csv")


def test_of_many_columns_twenty_are_shown():
    columns = [f"column_{number}" for number in range(30)]

    with pytest.raises(DataError, match=r"\(it has column_0, .*, column_19, \.\.\.\)"):
        require_columns({"data.columns.label": "label"}, columns, where="a.csv")


@pytest.mark.parametrize("name", ["image", "path", "row"])
def test_labels_cannot_stand_in_columns_that_every_row_has(name):
    with pytest.raises(
        DataError, match=rf"data\.columns\.label: a column called '{name}' cannot hold labels"
    ):
        require_free_names({"data.columns.label": name}, where="a.csv")


@pytest.mark.parametrize(
    ("features", "named", "expected"),
    [
        ({"image_path": TEXT, "other": TEXT}, None, "image_path"),
        ({"image_path": TEXT, "other": TEXT}, "other", "other"),
        ({"image_path": TEXT, "photo": Image()}, None, "image_path"),
        ({"label": TEXT, "photo": Image()}, None, "photo"),
        ({"label": TEXT, "photo": RAW}, None, "photo"),
        ({"front": Image(), "back": Image()}, "back", "back"),
    ],
)
def test_the_picture_column_is_the_one_named_or_the_only_one(features, named, expected):
    assert picture_column(Features(features), named, where="a.csv") == expected


def test_several_picture_columns_are_told():
    with pytest.raises(
        DataError, match=r"a\.csv has several columns of pictures \(front, back\); name the one"
    ):
        picture_column(Features({"front": Image(), "back": RAW}), None, where="a.csv")


@pytest.mark.parametrize(("named", "wanted"), [(None, "image_path"), ("imgae", "imgae")])
def test_a_picture_column_that_is_not_there_is_told(named, wanted):
    with pytest.raises(
        DataError, match=rf"data\.columns\.image: no column '{wanted}' in a\.csv \(it has image,"
    ):
        picture_column(Features({"image": TEXT, "label": TEXT}), named, where="a.csv")
