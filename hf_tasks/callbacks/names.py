"""Names of classes as trackers and file systems take them, unique and readable back."""

import hashlib
import re

_ESCAPED = re.compile(r"_x([0-9a-f]+)_")


def tracked_name(text: str, *, longest: int = 100) -> str:
    """A text as a metric name, tag or file name: letters and digits of any script, `_`, `-` and `.` stay.

    All else becomes `_xHEX_`, as does a `_` before an `x`; so no two texts share a name, and original_text
    gives the text back. A name of more than `longest` characters is cut and ends in a hash instead.
    """
    name = re.sub(r"_(?=x)|[^\w.\-]", _escape, text)
    if not name.strip("."):  # empty, or a folder like `..`
        name = re.sub(r"\.", _escape, name) or "_x_"
    if len(name) > longest:
        name = f"{name[: longest - 17]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return name


def original_text(name: str) -> str:
    """The text that a name was made of, if it was not cut."""
    return "" if name == "_x_" else _ESCAPED.sub(lambda match: chr(int(match[1], 16)), name)


def _escape(match: re.Match[str]) -> str:
    return f"_x{ord(match[0]):x}_"
