"""Whatever a table file holds, it gives rows or a DataError, never another exception."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hf_tasks.data.tables import read_table
from hf_tasks.errors import DataError

PIECES = st.sampled_from(
    [
        *',;\t\n\r"{}[]: \0\ufeff\u2028\x85\x1c',
        "image_path",
        "label",
        "a.png",
        "null",
        "1.0",
        "кот",
        "\\ud800",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
)
RECORDS = st.lists(st.dictionaries(st.sampled_from(["image_path", "label"]), VALUES), max_size=4)
CONTENTS = (
    st.binary(max_size=60)
    | st.lists(PIECES, max_size=30).map(lambda pieces: "".join(pieces).encode())
    | RECORDS.map(lambda records: "\n".join(map(json.dumps, records)).encode())
)
ENCODINGS = ["utf-8", "utf-16", "cp1251", "utf-7", "idna", "punycode", "raw_unicode_escape"]


def whole_parquet() -> bytes:
    stream = io.BytesIO()
    table = pa.table({"image_path": ["a", "b"] * 20, "label": [["x"], []] * 20})
    pq.write_table(table, stream, store_schema=False)
    return stream.getvalue()


PARQUET = whole_parquet()


def read_all(path, encoding="utf-8"):
    try:
        _, batches = read_table(path, encoding=encoding, key="data.train")
        return [row for batch in batches for row in batch.to_pylist()]
    except DataError as error:
        return str(error)


@settings(deadline=None, max_examples=150)
@given(CONTENTS, st.sampled_from([".csv", ".tsv", ".jsonl"]), st.sampled_from(ENCODINGS))
@example(b"\\uda00", ".csv", "raw_unicode_escape")
@example(b'{"image_path": "\\ud800"}', ".jsonl", "utf-8")
def test_no_text_ends_in_a_traceback(tmp_path_factory, content, suffix, encoding):
    path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    path.write_bytes(content)

    assert read_all(path, encoding) is not None


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.integers(4, len(PARQUET) - 5), st.integers(0, 255), min_size=1, max_size=4))
@example({PARQUET.rindex(b"image_path"): 0x80})
def test_no_damaged_parquet_file_ends_in_a_traceback(tmp_path_factory, damage):
    path = tmp_path_factory.getbasetemp() / "fuzz.parquet"
    content = bytearray(PARQUET)
    for place, byte in damage.items():
        content[place] = byte
    path.write_bytes(content)

    assert read_all(path) is not None
