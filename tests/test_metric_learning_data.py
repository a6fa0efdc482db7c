"""Rows of metric learning: layouts, sides, groups, a picture's own match, and what is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pictures import write_class_pictures

from hf_tasks.errors import DataError, RecipeError
from hf_tasks.recipe import load_recipe
from hf_tasks.tasks.metric_learning.data import prepare_splits
from hf_tasks.tasks.metric_learning.measure import measure_retrieval
from hf_tasks.tasks.metric_learning.own_pictures import own_gallery_rows

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes to train on, and a table of four to validate with."""
    folder = tmp_path_factory.mktemp("rows")
    write_class_pictures(folder / "train", classes=3, per_class=5)
    write_class_pictures(folder / "val", classes=4, per_class=4, seed=1)
    return folder


def _splits(folder, data, *, columns="{}"):
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"task: metric-learning\noutput: run\nmodel: {{name: resnet10t, pretrained: false}}\n"
        f"data:\n  train: {{folder: {folder}/train}}\n  columns: {columns}\n{data}\n",
        encoding="utf-8",
    )
    return prepare_splits(load_recipe(recipe).settings)


def _table(folder, name, header, rows):
    (folder / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return f"  validation: {{table: {folder}/{name}.csv, images: {folder}/val}}"


def _rows(extra, *, classes=4, per_class=4):
    return [
        f"class{label}/{number}.png,class{label},{extra(label, number)}"
        for label in range(classes)
        for number in range(per_class)
    ]


def test_gallery_and_queries_may_be_folders_with_classes_of_their_own(folder):
    splits = _splits(folder, f"  gallery: {{folder: {folder}/val}}\n  query: {{folder: {folder}/train}}")

    rows = splits.validation
    assert splits.class_names == ("class0", "class1", "class2")
    assert splits.validation_names == ("class0", "class1", "class2", "class3")
    assert (sum(rows["is_gallery"]), sum(rows["is_query"]), len(rows)) == (16, 15, 31)
    assert splits.facts["validation"] == {
        "rows": 31, "queries": 15, "gallery": 16, "classes": 4, "classes_not_in_training": ["class3"],
    }  # fmt: skip
    assert (own_gallery_rows(rows) >= 0).tolist() == rows["is_gallery"][:]


def test_columns_of_a_table_say_who_is_query_and_who_is_in_the_gallery(folder):
    source = _table(
        folder, "sides", "image_path,label,is_query,is_gallery",
        _rows(lambda label, number: f"{int(number < 2)},{int(number > 0)}"),
    )  # fmt: skip

    rows = _splits(folder, source).validation

    assert rows["is_query"][:] == [number < 2 for _ in range(4) for number in range(4)]
    assert rows["is_gallery"][:] == [number > 0 for _ in range(4) for number in range(4)]


def test_a_set_without_these_columns_serves_as_both_and_no_picture_matches_itself(folder):
    rows = _splits(folder, f"  validation: {{folder: {folder}/val}}").validation
    embeddings = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)

    found = measure_retrieval(
        rows, embeddings, ks=(1,), false_accept_rate=None, cutoff_distance=None, device=CPU
    )

    assert all(rows["is_query"][:])
    assert all(rows["is_gallery"][:])
    assert found.scores.matches_Q.tolist() == [3] * 16
    assert (found.scores.neighbours_QK[:, 0] != np.arange(16)).all()


@pytest.mark.parametrize(("above", "stated"), [(15, {"neighbours_found": 1.0}), (16, {})])
def test_a_gallery_above_the_wanted_size_is_ranked_by_faiss_and_says_how_well(folder, above, stated):
    pytest.importorskip("faiss")
    rows = _splits(folder, f"  validation: {{folder: {folder}/val}}").validation
    embeddings = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    how = {"ks": (1,), "false_accept_rate": None, "cutoff_distance": None, "device": CPU}
    exact = measure_retrieval(rows, embeddings, **how)

    found = measure_retrieval(rows, embeddings, **how, approximate_above=above)

    # So few pictures are in no cell alone: all are looked through.
    assert found.figures == {**exact.figures, **stated}


def test_the_same_file_in_gallery_and_queries_is_no_match(folder):
    both = f"  gallery: {{folder: {folder}/val}}\n  query: {{folder: {folder}/val}}"
    rows = _splits(folder, both).validation
    embeddings = np.tile(np.random.default_rng(0).normal(size=(16, 8)), (2, 1)).astype(np.float32)

    found = measure_retrieval(
        rows, embeddings, ks=(1,), false_accept_rate=None, cutoff_distance=None, device=CPU
    )

    assert found.scores.matches_Q.tolist() == [3] * 16
    assert (found.scores.neighbour_cosines_QK[:, 0] < 0.999).all()


def test_a_file_is_one_picture_however_its_path_is_written(folder):
    write_class_pictures(folder / "links/val", classes=2, per_class=2)
    (folder / "links/val/link.png").symlink_to("class1/1.png")
    (folder / "links/val/folder").symlink_to("class0")
    (folder / "links/train").symlink_to(folder / "train")
    once = ["class0/0.png,class0", "class0/1.png,class0", "class1/0.png,class1", "class1/1.png,class1"]
    again = [
        "./class0/0.png,class0", "class1/../class0/1.png,class0",
        f"{folder}/links/val/class1/0.png,class1", "link.png,class1",
    ]  # fmt: skip
    source = _table(
        folder / "links", "spelled", "image_path,label,is_query,is_gallery",
        [f"{row},1,1" for row in (*once, *again)] + ["folder/0.png,class0,0,1"],
    )  # fmt: skip

    validation = _splits(folder / "links", source).validation

    assert validation["is_gallery"][:] == [True] * 4 + [False] * 5
    assert own_gallery_rows(validation).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_pictures_held_as_bytes_are_the_same_only_as_the_same_row(folder):
    rows = [f"class{label}/{number}.png" for label in range(2) for number in range(2)]
    contents = [(folder / "val" / name).read_bytes() for name in rows]
    table = pa.table({"image_path": contents * 2, "label": [name[:6] for name in rows] * 2})
    pq.write_table(table, folder / "bytes.parquet")

    validation = _splits(folder, f"  validation: {{table: {folder}/bytes.parquet}}").validation

    assert all(validation["is_gallery"][:])
    assert own_gallery_rows(validation).tolist() == list(range(8))


@pytest.mark.parametrize(
    ("gallery_class", "shot", "found"),
    [
        ("class1", "a", "class0/0.png: 2 rows, class0, class1"),
        ("class0", "b", "class0/0.png: 2 rows, class0"),
    ],
)
def test_a_query_that_is_in_the_gallery_as_something_else_is_refused(folder, gallery_class, shot, found):
    source = _table(
        folder, "divided", "image_path,label,shot,is_query,is_gallery",
        ["class0/0.png,class0,a,1,0", f"./class0/0.png,{gallery_class},{shot},0,1",
         "class0/1.png,class0,c,0,1", "class1/1.png,class1,d,0,1"],
    )  # fmt: skip

    rows = rf"\n  class0/0.png, class0\n  ./class0/0.png, {gallery_class}$"
    with pytest.raises(DataError, match=rf"different classes or groups: 2; give all rows .*{rows}"):
        _splits(folder, source, columns="{group: shot}")


def test_a_gallery_may_show_a_picture_under_two_classes_where_it_is_no_query(folder):
    source = _table(
        folder, "two_products", "image_path,label,is_query,is_gallery",
        ["class0/0.png,class0,1,0", "class0/1.png,class0,0,1", "class0/1.png,class1,0,1",
         "class0/1.png,class1,0,1", "class1/1.png,class1,0,1"],
    )  # fmt: skip

    validation = _splits(folder, source).validation

    assert validation["is_gallery"][:] == [False, True, True, False, True]


def test_pictures_of_one_group_are_not_matched(folder):
    source = _table(
        folder, "groups", "image_path,label,shot",
        _rows(lambda label, number: f"shot{label}-{number // 2}" if label else ""),
    )  # fmt: skip

    rows = _splits(folder, source, columns="{group: shot}").validation

    groups = rows["group"][:]
    assert groups[:4] == [-1] * 4
    assert [groups[4] == groups[5], groups[6] == groups[7], groups[4] == groups[6]] == [True, True, False]


def test_a_trial_has_few_rows_of_each_class_and_matches_to_measure(folder):
    splits = _splits(folder, f"  gallery: {{folder: {folder}/val}}\n  query: {{folder: {folder}/train}}")

    few = splits.head(16)

    assert len(few.train) == 15
    assert len(few.validation) == 16
    labels = np.array(few.validation["label"][:])
    by_side = {name: set(labels[np.array(few.validation[name][:])]) for name in ("is_query", "is_gallery")}
    assert by_side["is_query"] == by_side["is_gallery"] == {0, 1}


def test_the_facts_name_classes_with_fewer_pictures_than_a_batch_wants(folder):
    write_class_pictures(folder / "few/train", classes=2, per_class=2)
    write_class_pictures(folder / "few/more", classes=3, per_class=4)
    (folder / "few/more/class2").rename(folder / "few/train/class2")

    splits = _splits(
        folder / "few", f"  validation: {{folder: {folder}/val}}\nsampler: {{classes: 2, pictures: 3}}"
    )

    assert splits.facts["classes_that_repeat_pictures_in_a_batch"] == ["class0", "class1"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("  gallery: {folder: x}", r"data.query: missing; wanted data.gallery and data.query"),
        ("", r"wanted either data.gallery and data.query, or data.validation"),
        (
            "  validation: {folder: x}\n  gallery: {folder: x}\n  query: {folder: x}",
            r"wanted either data.gallery and data.query, or data.validation",
        ),
    ],
)
def test_sources_that_do_not_go_together_are_a_mistake_of_the_recipe(folder, data, message):
    with pytest.raises(RecipeError, match=message):
        _splits(folder, data)


def test_one_of_the_two_side_columns_alone_is_refused(folder):
    source = _table(folder, "half", "image_path,label,is_query", _rows(lambda label, number: "1"))

    with pytest.raises(DataError, match=r"data.columns.is_gallery: no column 'is_gallery' in"):
        _splits(folder, source)


def test_queries_that_have_no_match_at_all_are_refused(folder):
    write_class_pictures(folder / "alone", classes=3, per_class=1)

    with pytest.raises(DataError, match="no query has another picture of its class in the gallery"):
        _splits(folder, f"  validation: {{folder: {folder}/alone}}")


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (lambda label, number: "one", "no query has another picture of its class in the gallery beyond its"),
        (lambda label, number: f"of {label}", "no query has another picture of its class in the gallery bey"),
    ],
)
def test_groups_that_leave_nothing_to_match_are_refused(folder, group, message):
    source = _table(folder, "one_group", "image_path,label,shot", _rows(group))

    with pytest.raises(DataError, match=message):
        _splits(folder, source, columns="{group: shot}")


def test_a_group_column_that_is_not_there_is_refused(folder):
    with pytest.raises(DataError, match=r"data.columns.group: no column 'shot' in data.validation"):
        _splits(folder, f"  validation: {{folder: {folder}/val}}", columns="{group: shot}")


def test_an_unknown_loss_by_name_is_told_with_the_nearest(folder):
    path = folder / "loss.yaml"
    path.write_text(
        "task: metric-learning\noutput: run\nmodel: {name: resnet10t}\nloss: {name: pml/CircelLoss}\n"
        "data: {train: {folder: x}, validation: {folder: x}}\n",
        encoding="utf-8",
    )

    with pytest.raises(RecipeError, match=r"yaml:4: loss.name: found 'pml/CircelLoss'.*'pml/CircleLoss'"):
        load_recipe(path)
