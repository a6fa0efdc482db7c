"""Csv and tsv files: delimiter, quotes, line ends and encodings, compared with Python's csv module."""

import csv
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hf_tasks.data.delimited import DELIMITERS, read_delimited
from hf_tasks.data.tables import read_table
from hf_tasks.errors import DataError

CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюяЁё"
# A cell of any text that a file can hold: surrogates cannot be encoded, NUL ends the line for pandas.
CELLS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)
NAMES = st.lists(st.text(CYRILLIC + "abc_ ", min_size=1, max_size=8), min_size=2, max_size=5, unique=True)


def rows_of(path, *, encoding="utf-8") -> list[dict[str, str]]:
    _, batches = read_table(path, encoding=encoding, key="data.train")
    return [row for batch in batches for row in batch.to_pylist()]


def written(path, content: str | bytes, *, encoding="utf-8"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def refusal(path, *, encoding="utf-8") -> str:
    with pytest.raises(DataError, match=r"^data\.train") as refused:
        rows_of(path, encoding=encoding)
    return str(refused.value)


@st.composite
def tables(draw, cells=CELLS):
    names = draw(NAMES)
    width = len(names)
    return names, draw(st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=6))


@settings(deadline=None, max_examples=150)
@given(
    tables(),
    st.sampled_from(DELIMITERS),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["a.csv", "a.tsv"]),
)
@example((["a", "b"], [['x,"\n', "\r\n;\t"], ["", " "]]), ";", "\r\n", csv.QUOTE_ALL, "a.csv")
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory, table, delimiter, line_end, quoting, file_name
):
    names, cells = table
    # The csv module leaves a lone \r without quotes where lines end with \n, and cannot read it back itself.
    quoting = csv.QUOTE_ALL if line_end == "\n" else quoting
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator=line_end, quoting=quoting).writerows(
        [names, *cells]
    )
    path = written(tmp_path_factory.getbasetemp() / file_name, stream.getvalue())

    rows = rows_of(path)

    assert rows == [dict(zip(names, row, strict=True)) for row in cells]
    assert rows == list(csv.DictReader(io.StringIO(stream.getvalue(), newline=""), delimiter=delimiter))


@settings(deadline=None, max_examples=40)
@given(
    tables(st.text(CYRILLIC + "abc ,;\"'", max_size=8)),
    st.sampled_from(["utf-8", "utf-8-sig", "cp1251", "koi8-r", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]),
)
def test_any_encoding_that_is_named_gives_the_same_rows(tmp_path_factory, table, encoding):
    names, cells = table
    stream = io.StringIO()
    csv.writer(stream).writerows([names, *cells])
    path = written(tmp_path_factory.getbasetemp() / "a.csv", stream.getvalue(), encoding=encoding)

    rows = rows_of(path, encoding=encoding)

    assert rows == [dict(zip(names, row, strict=True)) for row in cells]


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path, encoding):
    path = written(tmp_path / "a.csv", "\ufeffimage_path;label\r\na.png;кот\r\n", encoding=encoding)

    assert rows_of(path, encoding=encoding) == [{"image_path": "a.png", "label": "кот"}]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_lines_may_end_as_on_any_system(tmp_path, line_end):
    path = written(tmp_path / "a.csv", line_end.join(["image_path,label", "a.png,x", "", "b.png,y", ""]))

    expected = [{"image_path": "a.png", "label": "x"}, {"image_path": "b.png", "label": "y"}]
    assert rows_of(path) == expected


def test_cells_stay_as_they_are_spelled(tmp_path):
    cells = ["007", "1.0", "1e3", "NA", "null", "None", "true", "", " x ", "2026-01-01", "1,5"]
    path = written(tmp_path / "a.csv", "image_path,label\n" + "".join(f'a.png,"{cell}"\n' for cell in cells))

    assert [row["label"] for row in rows_of(path)] == cells


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image_path;label;w\na.png;x;1,5\nb.png;y;2,5\n", {"image_path": "a.png", "label": "x", "w": "1,5"}),
        ("image_path;label\na,b.png;x\nc.png;y\n", {"image_path": "a,b.png", "label": "x"}),
        ("image_path\ta,b\nc.png\t1\n", {"image_path": "c.png", "a,b": "1"}),
        ("image_path\na.png\n", {"image_path": "a.png"}),
        ('image_path,label\na.png,5" disk\n', {"image_path": "a.png", "label": '5" disk'}),
    ],
    ids=["decimal comma", "comma in cells", "comma in header", "one column", "inch mark"],
)
def test_the_delimiter_is_the_one_that_splits_all_rows_alike(tmp_path, text, expected):
    assert rows_of(written(tmp_path / "a.csv", text))[0] == expected


def test_a_tsv_file_may_hold_commas_after_all(tmp_path):
    path = written(tmp_path / "a.tsv", "image_path,label\na.png,x\n")

    assert rows_of(path) == [{"image_path": "a.png", "label": "x"}]


def test_columns_of_trailing_delimiters_are_called_by_position(tmp_path):
    path = written(tmp_path / "a.csv", "image_path,label,,\na.png,x,,\n")

    assert rows_of(path) == [{"image_path": "a.png", "label": "x", "column 3": "", "column 4": ""}]


def test_trailing_delimiters_that_the_header_lacks_are_told(tmp_path):
    message = refusal(written(tmp_path / "a.csv", "image_path,label\na.png,x,\nb.png,y,\n"))

    assert "another number of fields than its header, which has 2 (image_path, label): 2;" in message
    assert message.endswith("\n  row 1 (line 2): 3 fields\n  row 2 (line 3): 3 fields")


def test_of_many_broken_rows_all_are_counted_and_ten_are_shown(tmp_path):
    lines = [f"{row}.png,x" + ",y" * (row % 2) for row in range(30)]
    message = refusal(written(tmp_path / "a.csv", "\n".join(["image_path,label", *lines])))

    first, *shown, more = message.split("\n  ")
    assert "(image_path, label): 15; mend them, and put quotes around fields that hold ','" in first
    assert shown == [f"row {row} (line {row + 1}): 3 fields" for row in range(2, 22, 2)]
    assert more == "and 5 more"


def test_rows_below_a_quoted_line_end_are_named_by_their_row_and_line(tmp_path):
    message = refusal(written(tmp_path / "a.csv", 'image_path,label\n"a\nb.png",x\nc.png\n'))

    assert message.endswith("row 2 (line 4): 1 fields")


@pytest.mark.parametrize("content", [b"", b"\n\r\n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_an_empty_file_is_told(tmp_path, content):
    assert refusal(written(tmp_path / "a.csv", content)).endswith(
        "a.csv is empty; wanted a header line and rows"
    )


def test_column_names_that_stand_twice_are_told(tmp_path):
    message = refusal(written(tmp_path / "a.csv", "image_path,label,label,x,x\na.png,1,2,3,4\n"))

    assert "column names that stand twice in" in message
    assert message.endswith("a.csv: label, x; rename or remove them")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('image_path,label\n"a.png,x\nb.png,y\n', "line 3: unexpected end of data; close every quote"),
        ('image_path,label\n"a"b.png,x\n', "line 2: ',' expected after '\"'; close every quote"),
        ('"image_path,label\na.png,x\n', "quotes in the header do not close; mend its first line"),
    ],
)
def test_quotes_that_do_not_close_are_told(tmp_path, text, expected):
    assert expected in refusal(written(tmp_path / "a.csv", text))


def test_a_cell_may_be_a_long_text(tmp_path):
    # Python's csv module refuses more than 131,072 characters unless it is told otherwise.
    story = "слово " * 50_000
    path = written(tmp_path / "a.csv", f"image_path,story\na.png,{story}\n")

    assert rows_of(path) == [{"image_path": "a.png", "story": story}]


@pytest.mark.parametrize("name", ["", "utf-9", "utf\0008", "hex", "rot13", "undefined"])
def test_a_name_that_is_no_text_encoding_is_told(tmp_path, name):
    path = written(tmp_path / "a.csv", "image_path,label\na.png,x\n")

    message = refusal(path, encoding=name)

    assert message.startswith("data.train.encoding: ")
    assert "unknown encoding" in message or "cannot be read as" in message


@pytest.mark.parametrize(
    ("written_in", "expected"),
    [
        ("cp1251", "byte 0xea at position 23 (line 2); name the encoding it was saved in, cp1251 or cp1252"),
        ("utf-16", "byte 0xff at position 0 (line 1); name the encoding it was saved in, utf-16"),
    ],
)
def test_the_first_wrong_byte_is_named_by_its_place(tmp_path, written_in, expected):
    content = "image_path;label\na.png;кот\n".encode(written_in)
    path = written(tmp_path / "a.csv", content)

    assert f"a.csv is not utf-8: {expected}" in refusal(path)


def test_a_wrong_byte_far_below_is_found_as_well(tmp_path):
    head = b"image_path,label\n" + b"a.png,x\n" * 20_000
    path = written(tmp_path / "a.csv", head + b"b.png,\xff\n")

    assert f"byte 0xff at position {len(head) + 6} (line 20002)" in refusal(path)


def test_batches_are_read_as_they_are_asked_for(tmp_path):
    path = written(tmp_path / "a.csv", "image_path,label\n" + "a.png,x\n" * 25_000 + "broken\n")

    schema, batches = read_delimited(path, "utf-8", "data.train")

    assert schema.names == ["image_path", "label"]
    assert [len(next(batches)) for _ in range(3)] == [10_000, 10_000, 5_000]
    with pytest.raises(DataError, match=r"row 25001 \(line 25002\): 1 fields"):
        next(batches)
