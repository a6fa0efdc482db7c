"""Compares the values of a recipe with its JSON Schema and says every difference in the user's words."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from hf_tasks.recipe.document import UNKNOWN, KeyPath, Problem, show_value

Schema = Mapping[str, Any]
_MANY = 12
IN_QUOTES = "; put it in quotes"
YAML_BOOLEANS = {"no", "off", "on", "yes", "true", "false"}
_WORDS = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
_BOUNDS = {
    "minimum": "of at least",
    "exclusiveMinimum": "above",
    "maximum": "of at most",
    "exclusiveMaximum": "below",
}


def find_problems(
    schema: Schema, values: Mapping[str, Any], *, written: Mapping[str, Any], owned: Mapping[KeyPath, str]
) -> list[Problem]:
    """Every key and value that the schema does not allow; UNKNOWN fits everywhere.

    Numbers and booleans may be given as texts, because environment variables are texts; true and false are
    no numbers.

    Args:
        schema: JSON Schema as pydantic writes it.
        values: the recipe with references followed.
        written: the same with references as written; a value from the environment is never shown.
        owned: keys that a recipe may not set, and what to do instead.
    """
    inlined = _inlined(schema, schema.get("$defs", {}))
    return list(_Check(written, owned).problems(inlined, values, ()))


def unknown_name(found: str, known: Sequence[str]) -> str:
    """What was found and wanted of a name that is not among the known ones, with the nearest of them."""
    schema = {"enum": list(known)}
    return f"found {show_value(found)}, wanted {_described(schema)}{_hint(schema, found)}"


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """The schema with each `$ref` replaced by what it names."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    entries = {
        key: _inlined(item, definitions) for key, item in schema.items() if key not in {"$ref", "$defs"}
    }
    if "$ref" in schema:
        named = definitions[schema["$ref"].rpartition("/")[2]]
        return {**_inlined(named, definitions), **entries}
    return entries


@dataclass(frozen=True)
class _Check:
    written: Mapping[str, Any]
    owned: Mapping[KeyPath, str]

    def problems(self, schema: Schema, value: Any, path: KeyPath) -> Iterator[Problem]:
        """Those of the branch that was meant, where a value may be of several kinds and fits none."""
        if value is UNKNOWN:
            return
        branches = _branches(schema)
        found = [list(self.of_branch(branch, value, path)) for branch in branches]
        if not all(found):
            return
        meant = _meant_branch(branches, value)
        yield from [self.wrong(schema, value, path)] if meant is None else found[meant]

    def of_branch(self, schema: Schema, value: Any, path: KeyPath) -> Iterator[Problem]:
        if "discriminator" in schema and isinstance(value, dict):
            yield from self.of_named(schema, value, path)
        elif schema.get("type") == "object" and isinstance(value, dict):
            yield from self.of_mapping(schema, value, path)
        elif schema.get("type") == "array" and isinstance(value, list):
            for index, item in enumerate(value):
                yield from self.problems(schema.get("items", {}), item, (*path, index))
        elif not _fits(schema, value):
            yield self.wrong(schema, value, path)

    def of_named(self, schema: Schema, value: Mapping[str, Any], path: KeyPath) -> Iterator[Problem]:
        """A mapping whose keys depend on the name that it gives, such as a loss."""
        key = schema["discriminator"]["propertyName"]
        named = {name: branch for branch in schema["oneOf"] for name in _choices(branch["properties"][key])}
        if key not in value:
            yield Problem((*path, key), f"missing; wanted {_described({'enum': list(named)})}")
        elif isinstance(value[key], str) and value[key] in named:
            yield from self.of_mapping(named[value[key]], value, path)
        elif value[key] is not UNKNOWN:
            yield self.wrong({"enum": list(named)}, value[key], (*path, key))

    def of_mapping(self, schema: Schema, value: Mapping[str, Any], path: KeyPath) -> Iterator[Problem]:
        known = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        for key, item in value.items():
            if key in known:
                yield from self.problems(known[key], item, (*path, key))
            elif others is False:
                yield Problem((*path, key), self.unknown_key(key, list(known), path))
            elif isinstance(others, dict):
                yield from self.problems(others, item, (*path, key))
        for key in schema.get("required", ()):
            if key not in value:
                about = known[key].get("description", "").rstrip(".")
                wanted = _described(known[key]) + (f" ({about})" if about else "")
                yield Problem((*path, key), f"missing; wanted {wanted}")

    def unknown_key(self, key: str, known: list[str], path: KeyPath) -> str:
        if (*path, key) in self.owned:
            return f"not set here; {self.owned[*path, key]}"
        near = get_close_matches(key, known, n=1)
        if near:
            return f"unknown key, did you mean {near[0]!r}?"
        if len(known) > _MANY:
            return "unknown key; `hf-tasks schema TASK` lists all"
        return f"unknown key; wanted {_listed(known)}"

    def wrong(self, schema: Schema, value: Any, path: KeyPath) -> Problem:
        written: Any = self.written
        for key in path:
            written = written[key]
        if isinstance(written, str) and "${" in written:
            return Problem(path, f"found {show_value(written)}, wanted {_described(schema)}")
        found, wanted = _found(schema, value), _described(schema)
        return Problem(path, f"found {found}, wanted {wanted}{_hint(schema, value)}")


def _branches(schema: Schema) -> list[Schema]:
    """The kinds of value that a schema allows, flat."""
    parts = schema.get("anyOf") or (None if "discriminator" in schema else schema.get("oneOf"))
    return [branch for part in parts for branch in _branches(part)] if parts else [schema]


def _meant_branch(branches: Sequence[Schema], value: Any) -> int | None:
    """Index of the branch that a value was meant for although it does not fit; None if that is not clear."""
    kind = "object" if isinstance(value, dict) else "array" if isinstance(value, list) else "none"
    alike = [index for index, branch in enumerate(branches) if _kind(branch) == kind]
    if len(branches) == 1 or len(alike) == 1:
        return alike[0] if alike else 0
    named = [index for index in alike if any(key in value for key in branches[index].get("required", ()))]
    return named[0] if named else None


def _kind(branch: Schema) -> str | None:
    return "object" if "discriminator" in branch else branch.get("type")


def _fits(schema: Schema, value: Any) -> bool:
    """Whether a single value is of the type, among the choices and within the bounds."""
    choices = _choices(schema)
    if choices:
        return any(type(value) is type(choice) and value == choice for choice in choices)
    match schema.get("type"):
        case None:
            return "discriminator" not in schema
        case "string":
            return isinstance(value, str) and len(value) >= schema.get("minLength", 0)
        case "boolean":
            return isinstance(value, bool) or (isinstance(value, str) and value.lower() in {"true", "false"})
        case "null":
            return value is None
        case "integer" | "number" as kind:
            number = _number(value, whole=kind == "integer")
            return number is not None and _is_within(schema, number)
        case _:
            return False


def _found(schema: Schema, value: Any) -> str:
    """The value; with its keys where a mapping is none of several that are known by their keys."""
    if isinstance(value, dict) and value and any("required" in branch for branch in _branches(schema)):
        return f"a mapping with {_listed([show_value(key) for key in list(value)[:5]], 'and')}"
    return show_value(value)


def _hint(schema: Schema, value: Any) -> str:
    """The nearest choice; or that YAML took a text, such as no or 007, for something else."""
    branches = _branches(schema)
    choices = [choice for branch in branches for choice in _choices(branch) if isinstance(choice, str)]
    if isinstance(value, bool | int | float):
        is_choice = str(value) in choices or (isinstance(value, bool) and YAML_BOOLEANS & {*choices})
        is_free = any(branch.get("type") == "string" and not _choices(branch) for branch in branches)
        return IN_QUOTES if is_choice or is_free else ""
    tried = [value] if isinstance(value, str) else list(value) if isinstance(value, dict) else []
    if isinstance(value, dict):
        choices = [key for branch in branches for key in branch.get("required", ())]
    count = 1 if len(choices) <= _MANY else 3
    near = [repr(name) for word in tried for name in get_close_matches(word, choices, n=count)]
    return f"; did you mean {_listed(near)}?" if near else ""


def _choices(schema: Schema) -> list[Any]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", ()))


def _number(value: Any, *, whole: bool) -> float | None:
    """The finite number that a value is or spells."""
    if isinstance(value, str) and whole and not re.fullmatch(r"[-+]?[0-9]{1,18}", value):
        return None
    try:
        number = None if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except (ValueError, OverflowError):
        return None
    if number is None or not math.isfinite(number) or (whole and not number.is_integer()):
        return None
    return number


def _is_within(schema: Schema, number: float) -> bool:
    return (
        schema.get("minimum", -math.inf) <= number <= schema.get("maximum", math.inf)
        and schema.get("exclusiveMinimum", -math.inf) < number < schema.get("exclusiveMaximum", math.inf)
    )  # fmt: skip


def _described(schema: Schema) -> str:
    """What a schema allows, in words."""
    words = [_described_branch(branch) for branch in _branches(schema) if branch.get("type") != "null"]
    return _listed(list(dict.fromkeys(words)))


def _described_branch(schema: Schema) -> str:
    if "discriminator" in schema:
        key = schema["discriminator"]["propertyName"]
        names = [repr(_choices(branch["properties"][key])[0]) for branch in schema["oneOf"]]
        return f"a mapping with {key}: {_listed(names)}"
    choices = _choices(schema)
    if len(choices) > _MANY:
        return f"one of {len(choices)} choices, which `hf-tasks schema TASK` lists"
    if choices:
        return _listed([show_value(choice) for choice in choices])
    kind = schema.get("type")
    if kind == "array":
        return f"a list (each {_described(schema.get('items', {}))})"
    if kind == "object":
        required = ", ".join(f"{key}: ..." for key in schema.get("required", ()))
        return f"{{{required}}}" if required else "a mapping"
    if kind == "string" and schema.get("minLength"):
        return "a text that is not empty"
    return _WORDS.get(str(kind), "a value") + _described_bounds(schema)


def _described_bounds(schema: Schema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}"
    bounds = [f"{word} {schema[key]}" for key, word in _BOUNDS.items() if key in schema]
    return f" {' and '.join(bounds)}" if bounds else ""


def _listed(words: Sequence[str], last: str = "or") -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)
