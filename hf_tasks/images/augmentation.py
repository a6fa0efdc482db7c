"""Augmentation files: short YAML lists of transforms, read in full before a picture is touched."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from yaml.constructor import SafeConstructor

from hf_tasks.errors import RecipeError
from hf_tasks.images.augmentation_transforms import (
    GROUPS,
    Transform,
    argument_names,
    build_group,
    build_transform,
    nearest,
    require_name,
)

NONE = "none"
PRESETS = ("light", "medium", "hard")
SECTIONS = ("crop_scale", "transforms")
DEFAULT_CROP_SCALE = (0.8, 1.0)

Pairs: TypeAlias = list[tuple[yaml.Node, yaml.Node]]


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training picture between decoding and normalising."""

    crop_scale: tuple[float, float]
    """Smallest and largest share of the picture's area that a random crop keeps, in (0, 1]."""
    transforms: tuple[Transform, ...]


def load_augmentation(name_or_path: str) -> Augmentation:
    """Build the transforms of `light`, `medium`, `hard` or a YAML file; `none` has no crop either.

    A file holds `transforms`, a list of `- Name: {argument: value}` where OneOf, SomeOf and Sequential hold
    such a list themselves, and `crop_scale`, `[0.8, 1.0]` if left out. Each transform is tried once on noise.

    Raises:
        RecipeError: no such file, or mistakes in it; all of them, with their lines.
    """
    if name_or_path == NONE:
        return Augmentation((1.0, 1.0), ())
    shown, text = _read_text(name_or_path)
    reader = _Reader(shown)
    augmentation = reader.read_file(_parse(shown, text))
    if reader.problems:
        raise RecipeError(reader.problems)
    return augmentation


def require_augmentation(name_or_path: str) -> None:
    """Check an augmentation's name or file.

    Raises:
        RecipeError: as load_augmentation.
    """
    load_augmentation(name_or_path)


def _read_text(name_or_path: str) -> tuple[str, str]:
    if name_or_path in PRESETS:
        preset = files("hf_tasks.images") / "augmentations" / f"{name_or_path}.yaml"
        return f"{name_or_path}.yaml", preset.read_text(encoding="utf-8")
    path = Path(name_or_path)
    if not path.is_file():
        names = (NONE, *PRESETS)
        wanted = f"neither a file nor one of {', '.join(names)}{nearest(name_or_path, names)}"
        raise RecipeError([f"augmentation: '{name_or_path}' is {wanted}"])
    try:
        return name_or_path, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError([f"{name_or_path}: cannot be read as UTF-8 text: {error}"]) from error


def _parse(shown: str, text: str) -> yaml.Node | None:
    try:
        aliases = [event for event in yaml.parse(text, yaml.SafeLoader) if isinstance(event, yaml.AliasEvent)]
        root = None if aliases else yaml.compose(text, yaml.SafeLoader)
        if root is not None:
            SafeConstructor().construct_document(root)  # refuses tags, such as !!python/name
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f":{error.problem_mark.line + 1}"
        raise RecipeError([f"{shown}{line}: not plain YAML: {error.problem}"]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError([f"{shown}: not plain YAML: {error}"]) from error
    if aliases:
        raise RecipeError(
            [f"{shown}: YAML aliases (*{aliases[0].anchor}) are not taken; write the entry out"]
        )
    return root


def _value(node: yaml.Node) -> Any:
    return SafeConstructor().construct_document(node)


class _Reader:
    """Turns the nodes of one file into transforms, and gathers its mistakes."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.problems: list[str] = []

    def read_file(self, root: yaml.Node | None) -> Augmentation:
        if not isinstance(root, yaml.MappingNode):
            self._add(root, f"wanted the keys {' and '.join(SECTIONS)}")
            return Augmentation(DEFAULT_CROP_SCALE, ())
        sections = self._items(root.value, SECTIONS)
        crop_scale = DEFAULT_CROP_SCALE
        if "crop_scale" in sections:
            crop_scale = self._read_crop_scale(sections["crop_scale"])
        if "transforms" not in sections:
            self._add(root, "the key transforms is missing")
            return Augmentation(crop_scale, ())
        return Augmentation(crop_scale, tuple(self._read_list(sections["transforms"])))

    def _read_crop_scale(self, node: yaml.Node) -> tuple[float, float]:
        match _value(node):
            case [int() | float() as low, int() | float() as high] if 0 < low <= high <= 1:
                return float(low), float(high)
            case found:
                self._add(node, f"crop_scale: found {found!r}, wanted [low, high] with 0 < low <= high <= 1")
                return DEFAULT_CROP_SCALE

    def _read_list(self, node: yaml.Node) -> list[Transform]:
        if not isinstance(node, yaml.SequenceNode):
            self._add(node, f"transforms: found {_value(node)!r}, wanted a list of '- Name: {{...}}'")
            return []
        read = [self._read_entry(entry) for entry in node.value]
        return [transform for transform in read if transform is not None]

    def _read_entry(self, node: yaml.Node) -> Transform | None:
        pairs: Pairs
        match node:
            case yaml.ScalarNode(value=name):
                pairs = []
            case yaml.MappingNode(value=[(yaml.ScalarNode(value=name), yaml.MappingNode(value=pairs))]):
                pass
            case yaml.MappingNode(value=[(yaml.ScalarNode(value=name), _)]) if name in GROUPS:
                self._add(node, f"found {_value(node)!r}, wanted '- {name}: {{transforms: [...]}}'")
                return None
            case _:
                self._add(node, f"found {_value(node)!r}, wanted one '- Name: {{argument: value}}'")
                return None
        try:
            return self._build_entry(name, pairs)
        except RecipeError as error:
            for problem in error.problems:
                self._add(node, problem)
            return None

    def _build_entry(self, name: str, pairs: Pairs) -> Transform | None:
        require_name(name)
        found_before = len(self.problems)
        items = self._items(pairs, argument_names(name))
        members = self._read_list(items.pop("transforms")) if "transforms" in items else []
        if len(self.problems) > found_before:
            return None
        values = {key: _value(item) for key, item in items.items()}
        return build_group(name, members, values) if name in GROUPS else build_transform(name, values)

    def _items(self, pairs: Pairs, known: Sequence[str]) -> dict[str, yaml.Node]:
        items: dict[str, yaml.Node] = {}
        for key_node, value_node in pairs:
            key = str(key_node.value)
            if key in items:
                self._add(key_node, f"the key {key} stands here twice")
            elif key not in known:
                suggestion = nearest(key, known) or f"; wanted {', '.join(known)}"
                self._add(key_node, f"unknown key '{key}'{suggestion}")
            items[key] = value_node
        return {key: item for key, item in items.items() if key in known}

    def _add(self, node: yaml.Node | None, problem: str) -> None:
        line = "" if node is None else f":{node.start_mark.line + 1}"
        self.problems.append(f"{self.shown}{line}: {problem}")
