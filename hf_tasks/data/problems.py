"""Problems of one kind, found in many rows, told in one message."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hf_tasks.errors import DataError

SHOWN = 10
LONGEST = 400  # characters of an example


@dataclass
class Findings:
    """Problems of one kind: all are counted, the first ten are kept to be shown.

    `kind` says what is wrong with which rows, `advice` the user's next move.
    """

    kind: str
    advice: str
    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Count one more; `example` names its row or line, and is shown on one."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(_shortened("\\n".join(example.splitlines())))

    def __str__(self) -> str:
        """The message: kind, count, next move, and a line for each example that was kept."""
        more = [f"and {self.count - len(self.first)} more"] if self.count > len(self.first) else []
        return "\n  ".join([f"{self.kind}: {self.count}; {self.advice}", *self.first, *more])


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


@dataclass
class Problems:
    """Data errors of several checks, which the user is told together."""

    messages: list[str] = field(default_factory=list)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note a DataError that is raised inside, and go on after it."""
        try:
            yield
        except DataError as error:
            self.messages.append(str(error))

    def raise_all(self) -> None:
        """Raise what was noted, each message once.

        Raises:
            DataError: something was.
        """
        if self.messages:
            raise DataError("\n".join(dict.fromkeys(self.messages)))


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'label'?` for the nearest of the known names, or nothing when none is near."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""
