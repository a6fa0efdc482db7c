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


def test_a_column_of_a_table_holds_documents_and_blank_ones_are_none(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "one"}\n{"body": " "}\n{"body": null}\n{"body": "two\\nlines"}\n')

    documents = load_documents(TextTable(table=str(path)), column="body")

    assert documents["text"][:] == ["one", "two\nlines"]


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
