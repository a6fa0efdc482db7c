"""Text files in any encoding; a wrong byte is named by its place."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from hf_tasks.errors import DataError

BYTE_ORDER_MARK = "\ufeff"


@contextmanager
def open_text(path: Path, encoding: str, key: str, *, errors: str = "strict") -> Iterator[TextIO]:
    """The file as text, with its line ends kept and a byte order mark skipped.

    Args:
        path: the file.
        encoding: any text encoding that Python knows.
        key: recipe section of the source, as `data.train`, for messages.
        errors: what Python does with wrong bytes.

    Raises:
        DataError: the encoding is unknown, or (also while the text is read) the file is not written in it.
    """
    try:
        name = codecs.lookup(encoding).name
    # A name with a NUL in it is a ValueError.
    except (LookupError, ValueError):
        raise DataError(
            f"{key}.encoding: unknown encoding '{encoding}'; wanted utf-8, cp1251, latin-1 or the like"
        ) from None
    try:
        with open(path, encoding=name, errors=errors, newline="") as file:
            if file.read(1) != BYTE_ORDER_MARK:
                file.seek(0)
            yield file
    except UnicodeDecodeError:
        raise wrong_encoding(path, name, key) from None
    except (UnicodeError, LookupError) as error:
        raise DataError(f"{key}.encoding: {path} cannot be read as {encoding}: {error}") from None


def wrong_encoding(path: Path, encoding: str, key: str) -> DataError:
    """What is to be raised of a file with wrong bytes, with the place of the first.

    It is found anew: while a file is streamed, its position is not known.
    """
    content = path.read_bytes()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        likely = "utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "cp1251 or cp1252"
        return DataError(
            f"{key}.encoding: {path} is not {encoding}: byte 0x{content[error.start]:02x} at position "
            f"{error.start} (line {line}); name the encoding it was saved in, {likely} for instance"
        )
    return DataError(f"{key}.encoding: {path} is not {encoding}; name the encoding it was saved in")
