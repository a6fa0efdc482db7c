"""What is wrong with texts, found on plain values: blank, wrongly decoded, too long."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace

from hf_tasks.contract.examination import Finding, FoundRow, Severity
from hf_tasks.data.texts import shown_text

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# UTF-8 that was read as Latin-1: the first byte of most letters beyond English, and one that follows it.
MISREAD = re.compile(f"{REPLACEMENT}|[ÃÂÐÑ][\x80-\xbf]")


def normal_text(text: str) -> str:
    """The text without what the eye passes over: case, width, runs of white space (NFKC, casefold)."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def find_undecodable(rows: Sequence[FoundRow]) -> list[Finding]:
    """Documents with bytes that their file's encoding does not have."""
    advice = "set `encoding` to the one that the file was saved in, or remove them"
    return [Finding("error", "documents that cannot be decoded", advice, tuple(rows))] if rows else []


def find_blank(rows: Sequence[FoundRow], texts: Sequence[Sequence[str | None]]) -> list[Finding]:
    """Rows one of whose texts is missing or white space alone."""
    advice = "fill them in, or remove the rows"
    return _found("error", "rows without a text", advice, rows, texts, _is_blank, is_left_out=True)


def find_misread(rows: Sequence[FoundRow], texts: Sequence[Sequence[str | None]]) -> list[Finding]:
    """Rows with signs of a file that was read in another encoding than it was written in."""
    kind = "texts that were decoded wrongly"
    return _found(
        "warning", kind, "set `encoding`, or write the file anew as UTF-8", rows, texts, _is_misread
    )


def find_same_texts(rows: Sequence[FoundRow], texts: Sequence[Sequence[str | None]]) -> list[Finding]:
    """Pairs of a text with itself, by normal_text."""
    advice = "remove them: they teach nothing"
    return _found("warning", "pairs of one and the same text", advice, rows, texts, _is_same)


def find_cut(rows: Sequence[FoundRow], lengths: Sequence[int], limit: int) -> list[Finding]:
    """Rows longer than the model reads.

    Args:
        rows: of all sections.
        lengths: tokens of the longest text of each.
        limit: tokens that the model reads.
    """
    long = tuple(
        replace(row, text=f"{row.text} ({length} tokens)")
        for row, length in zip(rows, lengths, strict=True)
        if length > limit
    )
    kind = f"texts above {limit} tokens, which are cut"
    return [Finding("note", kind, "raise model.max_length if their ends count", long)] if long else []


def text_row(section: str, number: int, texts: Sequence[str | None]) -> FoundRow:
    """A row that goes by the beginning of its texts."""
    shown = " | ".join("nothing" if text is None else shown_text(text) for text in texts)
    return FoundRow(section, number, shown)


def _found(
    severity: Severity,
    kind: str,
    advice: str,
    rows: Sequence[FoundRow],
    texts: Sequence[Sequence[str | None]],
    is_faulty: Callable[[Sequence[str | None]], bool],
    *,
    is_left_out: bool = False,
) -> list[Finding]:
    faulty = tuple(
        replace(row, is_left_out=is_left_out)
        for row, of_row in zip(rows, texts, strict=True)
        if is_faulty(of_row)
    )
    return [Finding(severity, kind, advice, faulty)] if faulty else []


def _is_blank(texts: Sequence[str | None]) -> bool:
    return any(text is None or not text.strip() for text in texts)


def _is_misread(texts: Sequence[str | None]) -> bool:
    return any(text and MISREAD.search(text) for text in texts)


def _is_same(texts: Sequence[str | None]) -> bool:
    return (
        len(texts) > 1
        and bool(texts[0] and texts[1])
        and normal_text(texts[0] or "") == normal_text(texts[1] or "")
    )
