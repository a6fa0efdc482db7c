"""Documents of text files and tables."""

import pytest

from hf_tasks.data.documents import load_documents
from hf_tasks.data.sources import TextFile, TextTable
from hf_tasks.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of our own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def text_file(tmp_path):
    """Two documents of lines, with an empty line between them and line ends of both kinds."""
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffodin\r\nлил \n \n\ntri\n".encode())
    return path


def test_lines_are_documents(text_file):
    documents = load_documents(TextFile(text=str(text_file)), column="text")

    assert documents["text"][:] == ["odin", "лил ", "tri"]


def test_blank_lines_part_documents(text_file):
    documents = load_documents(TextFile(text=str(text_file), documents="paragraphs"), column="text")

    assert documents["text"][:] == ["odin\nлил ", "tri"]


def test_a_column_of_a_table_holds_documents_and_blank_ones_are_refused_or_skipped(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "one"}\n{"body": " "}\n{"body": null}\n{"body": "two\\nlines"}\n')
    source, skipped = TextTable(table=str(path)), []

    documents = load_documents(source, column="body", key="data.train", skipped=skipped)

    assert documents["text"][:] == ["one", "two\nlines"]
    assert skipped == [
        {"section": "train", "row": row, "reason": "no text in column 'body'"} for row in (2, 3)
    ]
    with pytest.raises(DataError, match=r"a text in column 'body': 2; .*skip`\n  row 2\n  row 3"):
        load_documents(source, column="body")


@pytest.mark.parametrize(
    ("documents", "kept", "row"), [("lines", ["one", "two", "lil"], 4), ("paragraphs", ["one\ntwo"], 2)]
)
def test_documents_with_wrong_bytes_are_skipped_and_told_with_their_line(tmp_path, documents, kept, row):
    path = tmp_path / "a.txt"
    path.write_bytes("one\ntwo\n\nlil\nл\n".encode("cp1251"))
    skipped = []

    source = TextFile(text=str(path), documents=documents)
    found = load_documents(source, column="text", key="data.train", skipped=skipped)

    assert found["text"][:] == kept
    assert skipped == [{"section": "train", "row": row, "reason": "line 5: byte 0xeb is not utf-8"}]


def test_a_file_of_wrong_bytes_alone_leaves_nothing_to_skip_to(tmp_path):
    (tmp_path / "a.txt").write_bytes("лил".encode("cp1251"))

    with pytest.raises(DataError, match=r"no row can be used, .* the first: line 1: byte 0xeb is not utf-8"):
        load_documents(TextFile(text=str(tmp_path / "a.txt")), column="text", key="data.train", skipped=[])


def test_a_file_without_text_is_told(tmp_path):
    (tmp_path / "a.txt").write_text("\n \n")

    with pytest.raises(DataError, match=r"a\.txt has no text; wanted at least one document"):
        load_documents(TextFile(text=str(tmp_path / "a.txt")), column="text")


def test_a_missing_file_is_told_with_the_nearest(text_file):
    with pytest.raises(DataError, match=r"data\.text: no file .*b\.txt; did you mean 'a\.txt'"):
        load_documents(TextFile(text=str(text_file.with_name("b.txt"))), column="text")


def test_another_encoding_is_told_with_its_place(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\nлил\n".encode("cp1251"))

    with pytest.raises(DataError, match=r"is not utf-8: byte 0xeb at position 4 \(line 2\)"):
        load_documents(TextFile(text=str(tmp_path / "a.txt")), column="text")
