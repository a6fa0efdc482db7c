"""What is wrong with the rows of a recipe, told before training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from datasets import Dataset

Severity = Literal["error", "warning", "note"]
"""error: training refuses it; warning: it runs, and model or figures suffer; note: worth knowing."""


@dataclass(frozen=True)
class FoundRow:
    """A row that a finding is about."""

    section: str
    """Key below `data` of the source it stands in, such as train."""
    number: int
    """From 1, in its source."""
    text: str
    """What people know it by, and what was found there."""
    is_left_out: bool = False
    """Whether a cleaned table does without it."""
    label: str | None = None
    """What a cleaned table has in place of its label."""

    def __str__(self) -> str:
        """The row as it is shown."""
        return f"{self.section} row {self.number}, {self.text}"


@dataclass(frozen=True)
class Finding:
    """Faults of one kind, told before training."""

    severity: Severity
    kind: str
    advice: str
    """The next move."""
    rows: Sequence[FoundRow] = ()
    examples: Sequence[str] = ()
    """What it is about where that is no rows: classes, lines of a message."""

    @classmethod
    def of_error(cls, error: ValueError, *, kind: str) -> "Finding":
        """What an error says; a line of its message is an example."""
        return cls("error", kind, "mend what each line names", examples=tuple(str(error).splitlines()))

    @property
    def count(self) -> int:
        """How many rows or examples there are."""
        return len(self.rows) or len(self.examples)

    def first(self, limit: int) -> list[str]:
        """The first of them, as text."""
        return [str(found) for found in (self.rows or self.examples)[:limit]]


@dataclass(frozen=True)
class SourceRows:
    """All rows of a source as a table holds them, for a cleaned copy of it."""

    rows: Dataset
    """With the columns that the recipe names, and all others."""
    looked_at: Sequence[int]
    """Places, from 0, of the rows whose pictures or texts were looked at."""
    label_column: str | None = None
    """Where a label that is written anew stands."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """What the recipe says of the written table besides its name, such as the folder of `images`."""


@dataclass(frozen=True)
class Examination:
    """What a look at the rows of a recipe found."""

    findings: Sequence[Finding]
    sources: Mapping[str, SourceRows]
    """By key below `data`; those that could not be read are missing."""
