"""Tables of every kind hold the same rows; those of jsonl and parquet are compared with json and pandas."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Image

from hf_tasks.data.load import load_rows
from hf_tasks.data.sources import TableSource
from hf_tasks.data.tables import BATCH_ROWS
from hf_tasks.errors import DataError

pytestmark = pytest.mark.usefixtures("own_cache")

ROWS = [
    {"image_path": "кот 1.png", "label": "кот; или кошка"},
    {"image_path": "b,c.png", "label": "007"},
    {"image_path": "sub/d.PNG", "label": "1.0"},
]


def load(path, *, image_column=None, **options) -> list[dict]:
    """The rows, each picture as its path."""
    rows = load_rows(
        TableSource(table=str(path), **options), key="data.train", image_column=image_column
    ).to_list()
    return [{**row, "image": row["image"]["path"]} for row in rows]


def refusal(path, **options) -> str:
    with pytest.raises(DataError, match=r"^data\.") as refused:
        load(path, **options)
    return str(refused.value)


def written_lines(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_like(path, *, encoding="utf-8", separator=","):
    frame = pd.DataFrame(ROWS)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        frame.to_csv(path, index=False, sep=separator, encoding=encoding)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.csv", {}),
        ("a.CSV", {}),
        ("a.csv", {"separator": ";"}),
        ("a.csv", {"separator": "\t"}),
        ("a.tsv", {"separator": "\t"}),
        ("a.csv", {"encoding": "utf-8-sig"}),
        ("a.csv", {"encoding": "cp1251"}),
        ("a.csv", {"encoding": "utf-16"}),
        ("a.jsonl", {}),
        ("a.parquet", {}),
    ],
)
def test_every_kind_of_table_holds_the_same_rows(tmp_path, name, how):
    write_like(tmp_path / name, **how)
    named = {} if how.get("encoding", "utf-8-sig") == "utf-8-sig" else {"encoding": how["encoding"]}

    rows = load(tmp_path / name, **named)

    assert rows == [
        {
            "image": f"{tmp_path}/{row['image_path']}",
            "path": row["image_path"],
            "row": number,
            "label": row["label"],
        }
        for number, row in enumerate(ROWS, start=1)
    ]


def test_jsonl_numbers_are_spelled_as_in_the_file(tmp_path):
    values = ["1", "2.0", "1e3", "true", "null", '"x"', "123456789012345678901234567890"]
    path = written_lines(
        tmp_path / "a.jsonl", *(f'{{"image_path": "a", "label": {text}}}' for text in values)
    )

    labels = [row["label"] for row in load(path)]

    assert labels == ["1", "2.0", "1e3", "true", None, "x", "123456789012345678901234567890"]


def test_jsonl_lists_stay_lists_and_missing_keys_are_null(tmp_path):
    records = [{"image_path": "a", "tags": ["x", 1]}, {"image_path": "b"}, {"image_path": "c", "tags": []}]
    path = written_lines(tmp_path / "a.jsonl", *map(json.dumps, records), "", "  ")

    assert [row["tags"] for row in load(path)] == [["x", "1"], None, []]


def test_jsonl_lines_that_are_no_objects_are_counted(tmp_path):
    path = written_lines(tmp_path / "a.jsonl", '{"image_path": "a"}', "[1]", "{", *["7"] * 10)

    message = refusal(path)

    assert "a.jsonl that are not a JSON object: 12; mend or remove them\n  line 2: [1]\n  line 3: " in message
    assert message.endswith("line 11: 7\n  and 2 more")


@pytest.mark.parametrize("mixed", ['["b"]', '[["b"]]'])
def test_jsonl_columns_of_texts_and_lists_are_refused(tmp_path, mixed):
    path = written_lines(
        tmp_path / "a.jsonl", '{"image_path": "a", "tags": "x"}', f'{{"image_path": "b", "tags": {mixed}}}'
    )

    assert "column 'tags': " in refusal(path)
    assert "wanted all texts or all lists of texts in a column" in refusal(path)


def test_jsonl_keys_that_come_after_many_rows_are_columns_too(tmp_path):
    first = ['{"image_path": "a", "note": null, "tags": []}'] * (BATCH_ROWS + 1)
    path = written_lines(
        tmp_path / "a.jsonl", *first, '{"image_path": "b", "note": "x", "tags": ["y"], "z": 1}'
    )

    rows = load(path)

    assert len(rows) == len(first) + 1
    assert {name: rows[0][name] for name in ("note", "tags", "z")} == {"note": None, "tags": [], "z": None}
    assert {name: rows[-1][name] for name in ("note", "tags", "z")} == {"note": "x", "tags": ["y"], "z": "1"}


def test_jsonl_columns_that_change_after_many_rows_are_refused(tmp_path):
    lines = ['{"image_path": "a", "tags": "x"}'] * 10_000
    path = written_lines(tmp_path / "a.jsonl", *lines, '{"image_path": "b", "tags": ["x"]}')

    assert "wanted all texts or all lists of texts in a column" in refusal(path)


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_jsonl_file_is_told(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")

    assert refusal(tmp_path / "a.jsonl").endswith("a.jsonl is empty; wanted a line for each row")


def test_jsonl_without_any_key_has_no_columns(tmp_path):
    path = written_lines(tmp_path / "a.jsonl", "{}")

    assert refusal(path).endswith("no column 'image_path' in " + str(path) + " (it has none)")


def test_parquet_of_pandas_keeps_its_types(tmp_path):
    frame = pd.DataFrame(
        {
            "image_path": pd.Series(["a.png", None, "c.png"], dtype="string"),
            "label": pd.Categorical(["x", "y", "x"]),
            "number": [1.0, float("nan"), 3.0],
            "tags": [["a"], [], None],
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")

    rows = load(tmp_path / "a.parquet")

    assert [row["label"] for row in rows] == ["x", "y", "x"]
    assert [row["number"] for row in rows][::2] == [1.0, 3.0]
    assert [row["tags"] for row in rows] == [["a"], [], None]
    assert [row["image"] for row in rows] == [f"{tmp_path}/a.png", None, f"{tmp_path}/c.png"]


EMBEDDED = [b"1", b"2"]
STRUCTS = [{"bytes": b"1", "path": "x.png"}, {"bytes": None, "path": "s/y.png"}]
BY_ROW = ["a.parquet/1", "a.parquet/2"]


@pytest.mark.parametrize(
    ("pictures", "contents", "files", "shown"),
    [
        (pa.array(EMBEDDED), EMBEDDED, [None, None], BY_ROW),
        (pa.array(EMBEDDED, pa.large_binary()), EMBEDDED, [None, None], BY_ROW),
        (pa.array(STRUCTS), [b"1", None], ["x.png", "s/y.png"], ["a.parquet/1", "s/y.png"]),
        (pa.array(["x.png", "s/y.png"]), [None, None], ["x.png", "s/y.png"], ["x.png", "s/y.png"]),
        (pa.array(["x.png", None], pa.large_string()), [None, None], ["x.png", None], ["x.png", ""]),
    ],
    ids=["bytes", "large bytes", "bytes and paths", "paths", "large paths"],
)
def test_parquet_may_hold_the_pictures_themselves(tmp_path, pictures, contents, files, shown):
    pq.write_table(pa.table({"photo": pictures, "label": ["x", "y"]}), tmp_path / "a.parquet")

    rows = load_rows(TableSource(table=str(tmp_path / "a.parquet")), image_column="photo")

    assert rows.features["image"] == Image(decode=False)
    assert rows["path"][:] == shown
    assert [row["image"]["bytes"] for row in rows] == contents
    assert [row["image"]["path"] for row in rows] == [file and f"{tmp_path}/{file}" for file in files]


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"image_path,label\na,b\n"]
)
def test_a_broken_parquet_file_is_told(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)

    assert "a.parquet is not a whole parquet file: " in refusal(tmp_path / "a.parquet")


def test_a_parquet_file_that_is_broken_inside_is_told(tmp_path):
    pd.DataFrame({"image_path": [f"{row}.png" for row in range(5000)]}).to_parquet(tmp_path / "a.parquet")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[100:2000] = bytes(1900)
    (tmp_path / "a.parquet").write_bytes(content)

    assert "a.parquet is broken: " in refusal(tmp_path / "a.parquet")


def test_a_column_of_an_unknown_type_is_told(tmp_path):
    maps = pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8()))
    pq.write_table(pa.table({"image_path": ["a"], "maps": maps}), tmp_path / "a.parquet")

    assert "remove the column of that type" in refusal(tmp_path / "a.parquet")


def test_pictures_that_are_neither_paths_nor_contents_are_refused(tmp_path):
    pd.DataFrame({"image_path": [1, 2]}).to_parquet(tmp_path / "a.parquet")

    assert refusal(tmp_path / "a.parquet").endswith("holds int64; wanted paths or pictures")


@pytest.mark.parametrize("name", ["a.json", "a.txt", "a.xlsx", "table"])
def test_another_ending_is_refused_with_those_that_are_known(tmp_path, name):
    (tmp_path / name).write_text("image_path\na.png\n")

    assert "wanted .csv, .tsv, .jsonl, .parquet" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_table_without_rows_is_refused(tmp_path, name):
    frame = pd.DataFrame({"image_path": pd.Series(dtype="string"), "label": pd.Series(dtype="string")})
    if name == "a.csv":
        frame.to_csv(tmp_path / name, index=False)
    else:
        frame.to_parquet(tmp_path / name)

    assert refusal(tmp_path / name).endswith("has no rows; wanted at least one")
