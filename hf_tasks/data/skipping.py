"""Rows that cannot be used, left out because the recipe says so, each remembered with its reason."""

from collections.abc import Mapping
from typing import Any, Literal

import datasets

from hf_tasks.data.cleaning import places_without
from hf_tasks.data.inspect import RequireReadable, picture_problems, remember_readable
from hf_tasks.errors import DataError

OnBadExample = Literal["error", "skip"]


def without_rows(
    rows: datasets.Dataset, reasons: Mapping[int, str], *, section: str
) -> tuple[datasets.Dataset, list[dict[str, Any]]]:
    """The other rows, and what data.json says of those left out.

    Args:
        rows: of a source, all of them; those of pictures have `path`.
        reasons: by place, from 0, why a row is left out.
        section: key below `data` of the source.

    Raises:
        DataError: no row would be left.
    """
    if len(reasons) == len(rows):
        first = reasons[min(reasons)]
        raise DataError(f"data.{section}: no row can be used, so none is left to skip to; the first: {first}")
    if not reasons:
        return rows, []
    places = sorted(reasons)
    names = rows.select(places)["path"][:] if "path" in rows.column_names else [None] * len(places)
    skipped = [
        {"section": section, "row": place + 1, "reason": reasons[place]} | ({"path": name} if name else {})
        for place, name in zip(places, names, strict=True)
    ]
    return rows.select(places_without(len(rows), reasons)), skipped


def without_bad_pictures(
    rows: datasets.Dataset,
    label_reasons: Mapping[int, str],
    require_readable: RequireReadable,
    *,
    section: str,
) -> tuple[datasets.Dataset, list[dict[str, Any]]]:
    """As without_rows, where the picture of a row may be the reason too; each is decoded once.

    Args:
        rows: what load_rows returned.
        label_reasons: by place, from 0, what is wrong with a row's label.
        require_readable: raises DataError for a picture that cannot be decoded.
        section: key below `data` of the source.

    Raises:
        DataError: no row would be left.
    """
    reasons = {**picture_problems(rows, require_readable), **label_reasons}
    usable, skipped = without_rows(rows, reasons, section=section)
    remember_readable(usable)
    return usable, skipped
