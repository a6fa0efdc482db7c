"""YAML text to plain values with the line of every key; nothing in it can build or run anything."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

import yaml

from hf_tasks.errors import RecipeError

KeyPath = tuple[str | int, ...]

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_NODES = 100_000
REFERENCE = re.compile(
    r"\$\{(?:oc\.env:(?P<env>[A-Za-z_]\w*)(?P<default>,[\w./-]+)?|(?P<key>\w+(?:\.\w+)*))\}", re.ASCII
)
_TAG = "tag:yaml.org,2002:"
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]{0,99})")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?")
_EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")


class Unknown(Enum):
    """Stands where a value could not be read, so that one mistake is not reported twice."""

    VALUE = "unknown"


UNKNOWN: Final = Unknown.VALUE


@dataclass(frozen=True, order=True)
class Origin:
    """Where a value was written: in an override, or at a line of the file (from 1; 0 is the whole file)."""

    override: str = ""
    line: int = 0


@dataclass(frozen=True)
class Problem:
    """A mistake at a key; `origin` where it is not the place of that key."""

    path: KeyPath
    text: str
    origin: Origin | None = None


@dataclass
class Document:
    """Values of a YAML text. They are UNKNOWN as a whole when it is not YAML, or far too much of it."""

    values: Any = UNKNOWN
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_recipe_text(path: Path) -> str:
    """The text of a recipe file.

    Raises:
        RecipeError: it is not there, not a file, too large, or not UTF-8.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecipeError([f"{path}:{line}: not UTF-8 text; save the file as UTF-8"]) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise RecipeError([f"{path}: cannot be read ({reason}); wanted a recipe file in YAML"]) from error
    if len(content) > MAX_BYTES:
        raise RecipeError([f"{path}: {len(content):,} bytes, wanted a recipe of at most {MAX_BYTES:,}"])
    return text


def parse_document(text: str) -> Document:
    """Plain values (dict, list, str, int, float, bool, None) of one YAML 1.1 document.

    Dates, base-60 and octal numbers stay text, and 1e-3 is a number. What is refused (tags, merge keys, keys
    that are no text or come twice, references other than `${a.b}` and `${oc.env:NAME}`) is a problem, and
    UNKNOWN or absent in the values.
    """
    document = Document()
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except RecursionError:  # a chain of empty tags or anchors; nesting has its own limit
        document.problems.append(Problem((), "not valid YAML: too complex"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 0
        has_reference = mark is not None and "${" in (mark.get_snippet() or "")
        hint = "; inside braces or brackets, put ${...} in quotes" if has_reference else ""
        problem = f"not valid YAML: {' '.join(str(error.problem).split())}{hint}"
        document.problems.append(Problem((), problem, Origin(line=line)))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"character {error.character:#x} is not allowed in YAML"
        document.problems.append(Problem((), problem, Origin(line=line)))
    except (ValueError, OverflowError):  # PyYAML hands an escape like "\UFFFFFFFF" straight to chr()
        document.problems.append(Problem((), "not valid YAML: an escaped character that does not exist"))
    else:
        conversion = _Conversion(document)
        values = None if node is None else conversion.value(node, ())
        document.values = UNKNOWN if conversion.is_too_much else values
    return document


def dump_document(values: Mapping[str, Any]) -> str:
    """YAML text that `parse_document` reads back as the same values."""
    return yaml.dump(
        values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )


def show_path(path: KeyPath) -> str:
    """Keys joined by dots, on one line whatever they hold."""
    return ".".join(key if isinstance(key, str) and key.isprintable() else repr(key) for key in path)


def show_value(value: Any) -> str:
    """A found value, short and on one line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a huge number"
    shown = repr(value[:60] if isinstance(value, str) else value)
    return f"{shown}..." if isinstance(value, str) and len(value) > 60 else shown


class _Loader(yaml.SafeLoader):
    """Composes nodes only, down to a limited depth."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            problem = f"nested deeper than {MAX_DEPTH} levels"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Puts texts that look like numbers in quotes; writes a repeated value out instead of an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# YAML 1.1 takes 1e-3 (no dot) for a text.
_Loader.add_implicit_resolver(f"{_TAG}float", _EXPONENT, list("-+0123456789"))
_Dumper.add_implicit_resolver(f"{_TAG}float", _EXPONENT, list("-+0123456789"))


@dataclass
class _Conversion:
    """Turns nodes into values; an alias counts each time it is used, so a small text cannot grow huge."""

    document: Document
    nodes_left: int = MAX_NODES
    is_too_much: bool = False

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        if self.is_too_much:
            return UNKNOWN
        self.nodes_left -= 1
        if len(path) >= MAX_DEPTH or self.nodes_left < 0:
            self.is_too_much = True
            self.refuse(node, path, "aliases that repeat themselves too often; write the values out")
            return UNKNOWN
        tag = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and tag == "map":
            return {key: self.value(item, (*path, key)) for key, item in self.entries(node, path)}
        if isinstance(node, yaml.SequenceNode) and tag == "seq":
            return [self.item(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and tag in _SCALARS:
            return self.scalar(node, tag, path)
        shown = f"!!{tag}" if tag != node.tag else tag
        self.refuse(node, path, f"found the tag {show_value(shown)}, wanted a plain value without a tag")
        return UNKNOWN

    def entries(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[str, yaml.Node]]:
        first_lines: dict[str, int] = {}
        for key_node, item in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if key_node.tag == f"{_TAG}merge":
                self.refuse(key_node, path, "'<<' is not supported; write the keys out")
            elif key_node.tag != f"{_TAG}str" or not isinstance(key, str):
                found = f"the key {show_value(key)}" if isinstance(key, str) else "a key that is no text"
                self.refuse(key_node, path, f"found {found}, wanted a text as key; put it in quotes")
            elif key in first_lines:
                problem = f"key given twice, first in line {first_lines[key]}"
                self.refuse(key_node, (*path, key), problem)
            else:
                first_lines[key] = line
                self.document.lines[(*path, key)] = line
                yield key, item

    def item(self, node: yaml.Node, path: KeyPath) -> Any:
        self.document.lines[path] = node.start_mark.line + 1
        return self.value(node, path)

    def scalar(self, node: yaml.ScalarNode, tag: str, path: KeyPath) -> Any:
        text: str = node.value
        if tag == "null":
            return None
        if tag == "bool" and text.lower() in yaml.SafeLoader.bool_values:
            return yaml.SafeLoader.bool_values[text.lower()]
        if tag in {"int", "float"}:
            return _number(text)
        if "\0" in text:
            self.refuse(node, path, "found the character NUL, wanted a text without it")
            return UNKNOWN
        if "${" in REFERENCE.sub("", text) or r"\${" in text:
            wanted = "${key.of.this.recipe} or ${oc.env:NAME}, without a backslash"
            self.refuse(node, path, f"found {show_value(text)}, wanted a reference as {wanted}")
            return UNKNOWN
        return text

    def refuse(self, node: yaml.Node, path: KeyPath, text: str) -> None:
        self.document.problems.append(Problem(path, text, Origin(line=node.start_mark.line + 1)))


_SCALARS = {"str", "null", "bool", "int", "float", "timestamp", "value", "merge"}
_SPECIAL = {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}


def _number(text: str) -> int | float | str:
    """The number that a text spells in decimal; other spellings stay text."""
    digits = text.replace("_", "")
    if _DECIMAL.fullmatch(text):
        return int(digits)
    if text.lower() in _SPECIAL:
        return _SPECIAL[text.lower()]
    is_octal = digits.lstrip("+-").isdigit()
    return float(digits) if _FLOAT.fullmatch(text) and not is_octal else text
