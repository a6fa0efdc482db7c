"""What a recipe says once overrides are applied and references are followed."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hf_tasks.recipe.document import (
    REFERENCE,
    UNKNOWN,
    Document,
    KeyPath,
    Origin,
    Problem,
    parse_document,
    show_value,
)

_OVERRIDE = re.compile(r"(?P<key>\w[\w-]*(\.\w[\w-]*)*)=(?P<value>.*)", re.DOTALL)
_MAX_REFERRED = 1000


@dataclass(frozen=True)
class MergedValues:
    """Values of a file with overrides applied, references as written, and where each key comes from."""

    written: dict[str, Any]
    origins: Mapping[KeyPath, Origin]
    problems: tuple[Problem, ...]

    def origin(self, path: KeyPath) -> Origin:
        """Where a key, or the nearest one above it, was written."""
        known = (path[:length] for length in range(len(path), 0, -1) if path[:length] in self.origins)
        return next((self.origins[key] for key in known), Origin())


def apply_overrides(document: Document, overrides: Sequence[str]) -> MergedValues:
    """Put each `key.of.recipe=VALUE` in its place; VALUE is YAML and takes the whole place of the old one."""
    config = OmegaConf.create(document.values)
    origins = {path: Origin(line=line) for path, line in document.lines.items()}
    problems = list(document.problems)
    for override in overrides:
        origin = Origin(override=override)
        found = _apply_override(config, override, origins)
        problems += [Problem(problem.path, problem.text, origin) for problem in found]
    return MergedValues(_plain(config), origins, tuple(problems))


def resolve_references(written: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Values with every reference followed; one that leads nowhere is a problem, and UNKNOWN in the values.

    `${a.b}` stands for a single value of the same recipe that is not a reference to another key itself;
    `${oc.env:NAME}` and `${oc.env:NAME,DEFAULT}` for an environment variable.
    """
    problems: list[Problem] = []

    def checked(value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: checked(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [checked(item, (*path, index)) for index, item in enumerate(value)]
        found = list(_dangling(value, written)) if isinstance(value, str) and "${" in value else []
        problems.extend(Problem(path, text) for text in found)
        return UNKNOWN if found else value

    config = OmegaConf.create(checked(written, ()))
    return _plain(config, resolve=True), problems


def _plain(config: DictConfig, *, resolve: bool = False) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(config, resolve=resolve)
    return dict(plain)


def _apply_override(config: DictConfig, override: str, origins: dict[KeyPath, Origin]) -> list[Problem]:
    """Change `config` and `origins` in place; the problems found on the way."""
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        return [Problem((), "wanted KEY=VALUE, as training.num_train_epochs=3")]
    path = _key_path(match["key"], config)
    document = parse_document(match["value"])
    problems = [Problem((*path, *problem.path), problem.text) for problem in document.problems]
    try:
        OmegaConf.update(config, match["key"], document.values, merge=False, force_add=True)
    except (OmegaConfBaseException, ValueError):  # ValueError: a word where a list wants a number
        return [*problems, Problem(path, "no such place; wanted keys of mappings or numbers of list items")]
    for below in [known for known in origins if known[: len(path)] == path]:
        del origins[below]
    for length in range(1, len(path)):
        origins.setdefault(path[:length], Origin(override=override))
    origins[path] = Origin(override=override)
    return problems


def _key_path(key: str, config: DictConfig) -> KeyPath:
    """The keys of a dotted path; numbers where it goes through a list of `config`."""
    path: list[str | int] = []
    place: Any = _plain(config)
    for part in key.split("."):
        is_item = isinstance(place, list) and part.isdecimal()
        path.append(int(part) if is_item else part)
        place = _child(place, path[-1])
    return tuple(path)


def _child(place: Any, key: str | int) -> Any:
    if isinstance(place, dict):
        return place.get(key, UNKNOWN)
    if isinstance(place, list) and isinstance(key, int) and key < len(place):
        return place[key]
    return UNKNOWN


def _dangling(text: str, written: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the references of a text."""
    for reference in REFERENCE.finditer(text):
        shown = show_value(reference[0])
        name = reference["env"]
        if name and name not in os.environ and not reference["default"]:
            nearest = get_close_matches(name, os.environ, n=1, cutoff=0.8)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else "; set it"
            yield f"found {shown}, but the environment variable {name} is not set{hint}"
        if reference["key"]:
            yield from _dangling_key(reference["key"], shown, written)


def _dangling_key(key: str, shown: str, written: Mapping[str, Any]) -> Iterator[str]:
    place: Any = written
    for part in key.split("."):
        siblings = list(place) if isinstance(place, dict) else []
        place = _child(place, int(part) if isinstance(place, list) and part.isdecimal() else part)
        if place is UNKNOWN:
            nearest = get_close_matches(part, siblings, n=1)
            hint = f", did you mean {nearest[0]!r} for {part!r}?" if nearest else ""
            yield f"found {shown}, but this recipe has no key {key!r}{hint}"
            return
    if isinstance(place, dict | list) or (isinstance(place, str) and len(place) > _MAX_REFERRED):
        yield f"found {shown}, which is {show_value(place)}; wanted the key of a single short value"
    elif isinstance(place, str) and (place == "???" or any(m["key"] for m in REFERENCE.finditer(place))):
        yield f"found {shown}, which leads to {show_value(place)}; wanted the key of a plain value"
