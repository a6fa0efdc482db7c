"""What is wrong with pictures, found on what one look at each has told.

Axes: N pictures, P pairs.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hf_tasks.contract.examination import Finding, FoundRow, Severity
from hf_tasks.images.look import PictureFacts

SUFFIXES = {
    "AVIF": (".avif",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2", ".jpf", ".jpx", ".j2k"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
HUGE_PIXELS = 24_000_000
ODD_RATIO = 4
# A quarter of the network's input: what it is enlarged from holds less than it seems to.
TINY_SHARE = 0.25
USUAL_INPUT = 64

BITS_APART = 4
LEVELS_APART = 4.0
BANDS = 4
NEIGHBOURS = 64


def find_picture_faults(
    rows: Sequence[FoundRow], facts: Sequence[PictureFacts], *, image_size: int | None
) -> list[Finding]:
    """Files that are missing, empty, unreadable or named wrongly, and pictures of an unusual size.

    Args:
        rows: of all sections.
        facts: of their pictures.
        image_size: side of the network's input, pixels, where the recipe names one.
    """
    least = max(1, int(TINY_SHARE * (image_size or USUAL_INPUT)))
    kinds: tuple[tuple[Severity, str, str], ...] = (
        ("error", "picture files that are not there", "mend their paths, or remove the rows"),
        ("error", "picture files without content", "copy them anew, or remove the rows"),
        ("error", "pictures that cannot be decoded", "copy them anew, or remove the rows"),
        ("warning", "pictures that are not what their ending says", "rename them"),
        ("warning", f"tiny pictures, a side below {least} pixels", "look whether they show enough"),
        ("warning", f"huge pictures, above {HUGE_PIXELS // 10**6} million pixels", "save them smaller"),
        ("warning", f"odd shapes, a side over {ODD_RATIO} times the other", "cut them to what counts"),
    )  # fmt: skip
    found: list[list[FoundRow]] = [[] for _ in kinds]
    for row, fact in zip(rows, facts, strict=True):
        for place, reason in _faults(row, fact, least):
            is_left_out = kinds[place][0] == "error"
            found[place].append(replace(row, text=f"{row.text}: {reason}", is_left_out=is_left_out))
    return [Finding(*kind, tuple(of)) for kind, of in zip(kinds, found, strict=True) if of]


def find_near_duplicates(
    rows: Sequence[FoundRow], facts: Sequence[PictureFacts], labels: Sequence[Hashable]
) -> list[Finding]:
    """Pictures that look the same in other bytes: scaled, compressed anew, saved in another format.

    A hash may err, so nothing is left out for it.

    Args:
        rows: of all sections.
        facts: of their pictures.
        labels: of the rows; one without, None, is told elsewhere.
    """
    disputed, leaking, repeated = [], [], []
    for first, second in near_pairs(facts):
        if labels[first] is None or labels[second] is None:
            continue
        one, other = rows[first], rows[second]
        text = f"{one.text} ~ {other.section} row {other.number}, {other.text}"
        row = replace(one, text=text)
        if labels[first] != labels[second]:
            disputed.append(row)
        elif one.section != other.section:
            leaking.append(row)
        else:
            repeated.append(row)
    found: tuple[tuple[list[FoundRow], Severity, str, str], ...] = (
        (disputed, "warning", "nearly the same pictures with different labels", "see which label is right"),
        (leaking, "warning", "nearly the same pictures to train on and to measure on", "keep one side"),
        (repeated, "note", "nearly the same pictures again", "keep one of each"),
    )  # fmt: skip
    return [Finding(severity, kind, advice, tuple(of)) for of, severity, kind, advice in found if of]


def near_pairs(facts: Sequence[PictureFacts]) -> list[tuple[int, int]]:
    """Pictures with the nearest that comes after them and looks the same, in other bytes; each at most once.

    Hashes that differ in few bits agree in at least one band of 16; those are compared. Where a band is
    shared by very many, each is compared with its neighbours in sorted order alone.
    """
    usable = np.array([index for index, fact in enumerate(facts) if fact.fault is None], np.int64)
    if len(usable) < 2:
        return []
    hashes_N = np.array([facts[index].difference_hash for index in usable], np.uint64)
    likeness_N = np.stack([np.frombuffer(facts[index].likeness, np.uint8) for index in usable])
    nearest: dict[int, tuple[float, int]] = {}
    for first_P, second_P in _candidates(hashes_N):
        is_near_P = np.bitwise_count(hashes_N[first_P] ^ hashes_N[second_P]) <= BITS_APART
        first_P, second_P = first_P[is_near_P], second_P[is_near_P]
        apart_P = np.abs(likeness_N[first_P].astype(np.int16) - likeness_N[second_P]).mean(axis=1)
        for place in np.flatnonzero(apart_P <= LEVELS_APART):
            one, other = sorted((int(usable[first_P[place]]), int(usable[second_P[place]])))
            if facts[one].content != facts[other].content:
                nearest[one] = min(nearest.get(one, (np.inf, 0)), (float(apart_P[place]), other))
    return [(one, other) for one, (_, other) in sorted(nearest.items())]


def _candidates(hashes_N: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of places whose hashes share a band."""
    for band in range(BANDS):
        band_N = (hashes_N >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order_N = np.lexsort((hashes_N, band_N))
        sorted_N = band_N[order_N]
        for step in range(1, min(NEIGHBOURS, len(order_N) - 1) + 1):
            is_shared = sorted_N[step:] == sorted_N[:-step]
            if not is_shared.any():
                break
            yield order_N[:-step][is_shared], order_N[step:][is_shared]


def _faults(row: FoundRow, fact: PictureFacts, least: int) -> Iterator[tuple[int, str]]:
    """Which kinds of fault a picture has, by their places, and what was found."""
    if fact.fault is not None:
        yield ("missing", "empty", "unreadable").index(fact.fault), fact.reason
        return
    suffix = Path(row.text).suffix.lower()
    known = {ending for endings in SUFFIXES.values() for ending in endings}
    if fact.format in SUFFIXES and suffix in known and suffix not in SUFFIXES[fact.format]:
        yield 3, f"is {fact.format}"
    size = f"{fact.width} x {fact.height}"
    shorter, longer = sorted((fact.width, fact.height))
    if shorter < least:
        yield 4, size
    if fact.width * fact.height > HUGE_PIXELS:
        yield 5, size
    if longer > ODD_RATIO * shorter:
        yield 6, size
