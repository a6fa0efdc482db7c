"""Rows that hold the same thing: within a source, on both sides of the measure, or with different labels."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace

from hf_tasks.contract.examination import Finding, FoundRow


def find_duplicates(
    rows: Sequence[FoundRow],
    contents: Sequence[Hashable | None],
    labels: Sequence[Hashable | None] | None = None,
    *,
    what: str,
) -> list[Finding]:
    """Rows of equal content; each row is told once, by the worst that is true of it.

    Of a content with different labels every row is left out, as nobody knows which label is right. Of one in
    several sections the rows of the last section stay, so that the measure keeps its rows. Of one that is
    repeated within a section the first row stays.

    Args:
        rows: those of all sections, one section after the other.
        contents: what is compared; None compares with nothing.
        labels: of the rows; None where there are none, and for a row that lacks its own, which is told
            elsewhere and compares with nothing.
        what: the rows in the plural, such as pictures.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, content in enumerate(contents):
        if content is not None and (labels is None or labels[index] is not None):
            groups.setdefault(content, []).append(index)
    disputed, leaking, repeated = [], [], []
    for group in groups.values():
        if len(group) == 1:
            continue
        if labels is not None and len({labels[index] for index in group}) > 1:
            disputed += [_beside(rows, index, group, labels[index]) for index in group]
            continue
        last = rows[group[-1]].section
        leaking += [_beside(rows, index, group[::-1]) for index in group if rows[index].section != last]
        kept = [index for index in group if rows[index].section == last]
        repeated += [_beside(rows, index, kept) for index in kept[1:]]
    found = (
        (disputed, f"the same {what} with different labels", "find out which label is right"),
        (leaking, f"the same {what} to train on and to measure on", "take them out of one of the two"),
        (
            repeated,
            f"{what} that stand there again",
            "keep one of each, unless each is meant to count",
        ),
    )
    return [Finding("warning", kind, advice, tuple(group)) for group, kind, advice in found if group]


def shared_places(contents: Sequence[Hashable | None]) -> list[int]:
    """Places of what is there more than once: all that find_duplicates needs of many rows."""
    counts = Counter(contents)
    return [place for place, content in enumerate(contents) if content is not None and counts[content] > 1]


def _beside(
    rows: Sequence[FoundRow], index: int, group: Sequence[int], label: Hashable | None = None
) -> FoundRow:
    """The row with another one of its group, to be left out."""
    other = rows[next(place for place in group if place != index)]
    labelled = "" if label is None else f" ({_shown(label)})"
    text = f"{rows[index].text}{labelled} = {other.section} row {other.number}, {other.text}"
    return replace(rows[index], text=text, is_left_out=True)


def _shown(label: Hashable) -> str:
    return "|".join(map(str, label)) if isinstance(label, tuple) else str(label)
