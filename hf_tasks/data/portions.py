"""Texts a portion at a time: many short ones together, of long ones few, so that neither fills the memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import datasets

# Tokenizers take a hundred bytes for each.
CHARACTERS_AT_ONCE = 2**17
ROWS_AT_ONCE = 1000

Item = TypeVar("Item")


def in_portions(
    items: Iterable[Item], length: Callable[[Item], int], *, most: int = ROWS_AT_ONCE
) -> Iterator[list[Item]]:
    """Lists of consecutive items: each ends with `most`, or when it has CHARACTERS_AT_ONCE.

    Args:
        items: one of them may be longer than that, and is then read whole.
        length: characters of an item.
        most: items of a list.
    """
    portion, characters = list[Item](), 0
    for item in items:
        portion.append(item)
        characters += length(item)
        if len(portion) == most or characters >= CHARACTERS_AT_ONCE:
            yield portion
            portion, characters = [], 0
    if portion:
        yield portion


def rows_at_once(rows: datasets.Dataset) -> int:
    """How many rows to read together, by what the rows of the whole table take on average."""
    return portion_rows(rows.data.num_rows, rows.data.nbytes)


def portion_rows(count: int, size: int, *, most: int = ROWS_AT_ONCE) -> int:
    """How many rows to read together, at least 1, when `count` of them take `size` bytes."""
    return max(1, min(most, CHARACTERS_AT_ONCE * count // max(size, 1)))


def pieces_of(text: str) -> Iterator[str]:
    """The text, or of a long one parts of at most CHARACTERS_AT_ONCE, cut before white space if any."""
    start = 0
    while len(text) - start > CHARACTERS_AT_ONCE:
        end = start + CHARACTERS_AT_ONCE
        space = max(text.rfind(mark, start + 1, end) for mark in " \n")
        cut = end if space < 0 else space
        yield text[start:cut]
        start = cut
    yield text[start:]
