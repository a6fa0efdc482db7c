"""What is wrong with labels, found on plain values: missing, misspelt, rare, unseen, out of balance."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hf_tasks.contract.examination import Finding, FoundRow, Severity
from hf_tasks.data.labels import UNSEEN, bare_name

FEW_ROWS = 5
IMBALANCE = 10
# A name that is this much rarer than one it resembles is taken for a slip of the pen.
SLIP_SHARE = 0.2
SLIP_LETTERS = 4
# How programs write that there is nothing, upper and lower case aside; a blank cell is no label anyway.
NOTHING = {"nan", "none", "null", "nil", "na", "n/a", "<na>", "#n/a", "#na"}

Labels = tuple[str, ...]


@dataclass(frozen=True)
class LabelledRows:
    """Rows of one section, and the classes of each; None where a label is missing."""

    rows: Sequence[FoundRow]
    labels: Sequence[Labels | None]

    def counts(self) -> Counter[str]:
        """How many rows each class has."""
        return Counter(name for names in self.labels if names for name in names)

    def named(self, names: Mapping[str, str | None]) -> Iterator[FoundRow]:
        """Rows of these classes, to be labelled anew with what stands for the name, or left out for None.

        Several classes of a row are joined by `|`, as a table writes them.
        """
        for row, labels in zip(self.rows, self.labels, strict=True):
            mended = [names.get(name, name) for name in labels or ()]
            label = None if None in mended else "|".join(name for name in mended if name)
            for name in labels or ():
                if name in names:
                    text = f"{row.text}: {name!r}"
                    yield replace(row, text=text, is_left_out=label is None, label=label)


def find_unfit_cells(rows: Sequence[FoundRow]) -> list[Finding]:
    """Rows with a column of 0 and 1 that holds something else."""
    kind = "label cells that are neither 0 nor 1"
    return [Finding("error", kind, "mend them, or remove the rows", tuple(rows))] if rows else []


def find_label_faults(
    train: LabelledRows,
    others: Sequence[LabelledRows] = (),
    *,
    are_classes_shared: bool = True,
    least_classes: int = 2,
) -> list[Finding]:
    """Everything that is wrong with the labels of a task with classes.

    Args:
        train: rows that decide which classes there are.
        others: rows to measure on.
        are_classes_shared: whether those must be of the classes that are trained.
        least_classes: that make a task.
    """
    parts = [train, *others]
    spellings = right_spellings(parts)
    mended_train, *mended_others = (replace_names(part, spellings) for part in parts)
    counts = mended_train.counts()
    found = [*find_missing_labels(parts), *find_nothing(parts), *find_spellings(parts, spellings)]
    if are_classes_shared:
        found += find_unseen(mended_others, set(counts))
        for part in mended_others:
            found += find_absent(counts, part.counts())
    return [*found, *find_alike(counts), *find_rare(counts, least_classes)]


def find_missing_labels(parts: Sequence[LabelledRows]) -> list[Finding]:
    """Rows without a label."""
    found = [
        replace(row, is_left_out=True)
        for part in parts
        for row, labels in zip(part.rows, part.labels, strict=True)
        if labels is None
    ]
    advice = "fill them in, or remove the rows"
    return [Finding("error", "rows without a label", advice, tuple(found))] if found else []


def find_nothing(parts: Sequence[LabelledRows]) -> list[Finding]:
    """Labels by which other programs mean that there is none; here they are classes, as someone may mean."""
    names = {name for part in parts for name in part.counts() if name.strip().casefold() in NOTHING}
    found = [
        replace(row, text=f"{row.text}: {name!r}")
        for part in parts
        for row, labels in zip(part.rows, part.labels, strict=True)
        for name in labels or ()
        if name in names
    ]
    advice = "they are trained as classes; empty the cells or remove the rows, if no label is meant"
    return (
        [Finding("warning", "labels that read as if there were none", advice, tuple(found))] if found else []
    )


def find_spellings(parts: Sequence[LabelledRows], spellings: Mapping[str, str]) -> list[Finding]:
    """Labels that the eye takes for another class, or that have spaces around them."""
    all_counts = sum((part.counts() for part in parts), Counter[str]())
    twins = {name: right for name, right in spellings.items() if name != right}
    spaced = {
        name: name.strip() or None for name in all_counts if name != name.strip() and name not in spellings
    }
    found: tuple[tuple[Severity, str, Mapping[str, str | None]], ...] = (
        ("error", f"labels that differ from a class only in {UNSEEN}", twins),
        ("warning", "labels with spaces around them", spaced),
    )
    findings = []
    for severity, kind, names in found:
        rows = tuple(row for part in parts for row in part.named(names))
        if rows:
            findings.append(Finding(severity, kind, "write them alike, without such spaces", rows))
    return findings


def right_spellings(parts: Sequence[LabelledRows]) -> dict[str, str]:
    """Spellings of one and the same name, each with what it is to become.

    That is the commonest of the first part that has the name, one without spaces if there is one.
    """
    alike: dict[str, dict[str, int]] = {}
    for part in parts:
        counts = part.counts()
        first = {bare_name(name) for name in counts} - alike.keys()
        for name, count in sorted(counts.items()):
            rank = count if bare_name(name) in first else 0
            alike.setdefault(bare_name(name), {}).setdefault(name, rank)
    return {
        name: max(ranks, key=lambda text: (ranks[text] > 0, text == text.strip(), ranks[text], text))
        for ranks in alike.values()
        if len(ranks) > 1
        for name in ranks
    }


def find_unseen(others: Sequence[LabelledRows], class_names: set[str]) -> list[Finding]:
    """Rows to measure on whose class no training row has."""
    unknown = {name: None for part in others for name in part.counts() if name not in class_names}
    rows = tuple(row for part in others for row in part.named(unknown))
    advice = "mend them, or add such rows to the training data"
    return [Finding("error", "labels that no training row has", advice, rows)] if rows else []


def find_alike(counts: Mapping[str, int]) -> list[Finding]:
    """Classes that differ in upper and lower case alone, and rare ones a letter away from another."""
    by_case: dict[str, list[str]] = {}
    for name in sorted(counts):
        by_case.setdefault(name.strip().casefold(), []).append(name)
    twins = [" and ".join(map(repr, names)) for names in by_case.values() if len(names) > 1]
    slips = [
        f"{rare!r} ({counts[rare]} rows) and {common!r} ({counts[common]})"
        for rare, common in _a_letter_apart(sorted(counts))
        if rare.casefold() != common.casefold()
        for rare, common in [sorted((rare, common), key=lambda name: counts[name])]
        if counts[rare] <= SLIP_SHARE * counts[common]
    ]
    found = (
        (
            twins,
            "classes that differ only in upper and lower case",
            "write them alike, if they are one class",
        ),
        (slips, "rare classes a letter away from another", "mend the rows, if it is a slip of the pen"),
    )
    return [Finding("warning", kind, advice, examples=tuple(of)) for of, kind, advice in found if of]


def find_rare(counts: Mapping[str, int], least_classes: int = 2) -> list[Finding]:
    """Too few classes, classes with few rows, and a largest class far above the smallest."""
    if not counts:
        return [Finding("error", "no class", "add labels: there is nothing to learn", examples=("none",))]
    if len(counts) < least_classes:
        advice = "add rows of a second class: there is nothing to tell apart"
        return [Finding("error", "fewer than two classes", advice, examples=tuple(counts))]
    findings = []
    few = [f"{name}: {count}" for name, count in sorted(counts.items()) if count < FEW_ROWS]
    if few:
        kind = f"classes with fewer than {FEW_ROWS} training rows"
        findings.append(Finding("warning", kind, "add rows, or leave the classes out", examples=tuple(few)))
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[largest] >= IMBALANCE * counts[smallest]:
        example = f"{largest}: {counts[largest]}, {smallest}: {counts[smallest]}"
        advice = "look at f1_macro rather than accuracy, and try balanced weights in `loss`"
        kind = f"largest class {counts[largest] // counts[smallest]} times the smallest"
        findings.append(Finding("warning", kind, advice, examples=(example,)))
    return findings


def find_absent(train: Mapping[str, int], other: Mapping[str, int]) -> list[Finding]:
    """Classes that are trained and never measured."""
    absent = tuple(name for name in sorted(train) if name not in other)
    advice = "nothing is known of how well they are learnt; add rows to validation"
    return [Finding("note", "classes without a validation row", advice, examples=absent)] if absent else []


def replace_names(part: LabelledRows, names: Mapping[str, str]) -> LabelledRows:
    """The rows with classes under the names that stand for theirs."""
    renamed = [
        None if labels is None else tuple(names.get(name, name) for name in labels) for labels in part.labels
    ]
    return LabelledRows(part.rows, renamed)


def _a_letter_apart(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of names that one letter, or two neighbours in the wrong order, tell apart; digits never do."""
    reduced: dict[str, list[str]] = {}
    for name in names:
        if len(name) >= SLIP_LETTERS:
            for key in {name, *(name[:place] + name[place + 1 :] for place in range(len(name)))}:
                reduced.setdefault(key, []).append(name)
    pairs = {(one, two) for group in reduced.values() for one in group for two in group if one < two}
    return ((one, two) for one, two in sorted(pairs) if re.sub(r"\d", "", one) != re.sub(r"\d", "", two))
