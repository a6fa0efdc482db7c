"""Text that every machine with hf_tasks has: docstrings of Python's standard library and of its packages."""

import ast
import hashlib
import sysconfig
import warnings
from collections import defaultdict, deque
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from platform import python_version
from typing import NamedTuple

PACKAGES = ("numpy", "pandas", "scipy", "sklearn")
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
# Folders whose docstrings are about tests or copies of other packages.
LEFT_OUT = {"test", "tests", "site-packages", "dist-packages", "idlelib", "_vendor", "externals"}
WITH_STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)
SUMMARY_CHARACTERS = (20, 200)
BODY_CHARACTERS = (80, 1500)


class Docstring(NamedTuple):
    """What a function or class says of itself, white space made single."""

    module: str
    """File, relative to the folder of packages."""
    summary: str
    """Its first paragraph."""
    body: str
    """The rest; may be empty."""


class Pair(NamedTuple):
    """A summary with a body of the same module: its own (1) or another's (0)."""

    text_1: str
    text_2: str
    label: int


def source_names() -> str:
    """What the texts come from, with versions."""
    packages = [f"{name} {version(DISTRIBUTIONS.get(name, name))}" for name in PACKAGES]
    return f"Python {python_version()}, {', '.join(packages)}"


def read_docstrings() -> list[Docstring]:
    """Docstrings of functions and classes, in the order of files and lines; no module is imported."""
    roots = [Path(sysconfig.get_path("stdlib"))]
    for name in PACKAGES:
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        roots.append(Path(spec.origin).parent)
    return [docstring for root in roots for docstring in _of_folder(root)]


def docstring_pairs(docstrings: list[Docstring], *, held_out: float) -> tuple[list[Pair], list[Pair]]:
    """Pairs for training and for testing, a true and a false one of each function; no text is on both sides.

    A function is for testing by a hash of its summary. The false body is that of the function half a module
    further, on the same side: neighbours often say nearly the same. Summaries and bodies that stand twice,
    and very short ones, are left out.
    """
    sides: tuple[dict[str, list[Docstring]], ...] = (defaultdict(list), defaultdict(list))
    seen: set[str] = set()
    for docstring in docstrings:
        texts = {docstring.summary, docstring.body}
        if _is_long_enough(docstring) and seen.isdisjoint(texts):
            seen |= texts
            sides[is_held_out(docstring.summary, held_out)][docstring.module].append(docstring)
    train, test = ([pair for module in side.values() for pair in _of_module(module)] for side in sides)
    return train, test


def is_held_out(text: str, share: float) -> bool:
    """Whether a text belongs to the held-out share, by a hash of the text."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def _of_folder(root: Path) -> Iterator[Docstring]:
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if LEFT_OUT.isdisjoint(inside.parts):
            yield from _of_file(path, f"{root.name}/{inside.as_posix()}")


def _of_file(path: Path, module: str) -> Iterator[Docstring]:
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # the standard library ships files that are wrong on purpose
        return
    for node in _definitions(tree):
        text = ast.get_docstring(node)
        if text:
            summary, _, body = text.partition("\n\n")
            yield Docstring(module, " ".join(summary.split()), " ".join(body.split()))


def _definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Level by level, as `ast.walk`, which goes through expressions too and takes twice the time."""
    waiting = deque[ast.AST]([tree])
    while waiting:
        node = waiting.popleft()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node
        children = ast.iter_child_nodes(node)
        waiting.extend(child for child in children if isinstance(child, WITH_STATEMENTS))


def _is_long_enough(docstring: Docstring) -> bool:
    shortest, longest = SUMMARY_CHARACTERS
    return shortest <= len(docstring.summary) <= longest and len(docstring.body) >= BODY_CHARACTERS[0]


def _of_module(docstrings: list[Docstring]) -> Iterator[Pair]:
    if len(docstrings) < 2:
        return
    half = len(docstrings) // 2
    others = [*docstrings[half:], *docstrings[:half]]
    for docstring, other in zip(docstrings, others, strict=True):
        for label, body in ((1, docstring.body), (0, other.body)):
            yield Pair(docstring.summary, body[: BODY_CHARACTERS[1]], label)
