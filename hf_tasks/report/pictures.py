"""The pictures of a page: a thumbnail of each example that is shown anywhere, made once and stored once."""

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from PIL import Image

from hf_tasks.errors import DataError

SIDE = 128
MOST = 900
MOST_BYTES = 6_000_000


@dataclass(frozen=True)
class Example:
    """A thumbnail and what is said below it."""

    number: int
    source: str
    """A data: address; empty where the picture cannot be read any more."""
    size: tuple[int, int]
    """Width and height of the picture itself, pixels."""
    path: str
    caption: Any
    """Of the task; `example.html` draws it."""


@dataclass
class PictureBook:
    """Collects examples until the page is full; what comes first is what is kept."""

    load_picture: Callable[[int], Image.Image]
    path: Callable[[int], str]
    """(example) -> text that people know it by."""
    caption: Callable[[int], Any]
    examples: dict[int, Example] = field(default_factory=dict)
    size_bytes: int = 0

    def add(self, numbers: Iterable[int]) -> list[int]:
        """Make room for these examples; those the page can show, in their order."""
        return [number for number in map(int, numbers) if number in self.examples or self._add(number)]

    def _add(self, number: int) -> bool:
        if len(self.examples) >= MOST or self.size_bytes >= MOST_BYTES:
            return False
        source, size = _thumbnail(self.load_picture, number)
        self.size_bytes += len(source)
        self.examples[number] = Example(number, source, size, self.path(number), self.caption(number))
        return True


def no_pictures() -> PictureBook:
    """The book of a page whose examples are no pictures."""

    def load(number: int) -> Image.Image:
        raise IndexError(f"example {number}: this page has no pictures")

    return PictureBook(load, str, lambda number: None)


def _thumbnail(load_picture: Callable[[int], Image.Image], number: int) -> tuple[str, tuple[int, int]]:
    try:
        picture = load_picture(number)
    except DataError:
        # The page is about the answers; a picture that was moved since leaves a gap, not an error.
        return "", (0, 0)
    size = picture.size
    picture.thumbnail((SIDE, SIDE))
    content = BytesIO()
    picture.save(content, "WEBP", quality=75)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode(), size
