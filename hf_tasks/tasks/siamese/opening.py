"""Opens sentence-transformers models without running code that comes with them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import load_file_path

from hf_tasks.errors import ModelError, is_of_pickle

MODULES_FILE = "modules.json"
# The only modules that hold others, and where they name them; the second is of older releases.
ROUTERS = ("Router", "Asym")
ROUTER_FILES = ("router_config.json", "config.json")
# sentence-transformers trusts what lies in a local folder, and imports whatever else a model names.
OWN_CLASS = re.compile(r"sentence_transformers(\.\w+)*\.[A-Z]\w*", re.ASCII)
# What the libraries below raise on models that are missing, damaged or of another kind.
BROKEN = (OSError, ValueError, LookupError, TypeError, ImportError, SafetensorError, UnpicklingError)


def open_sentence_transformer(name: str, *, key: str) -> SentenceTransformer:
    """A model by its name on the Hub or its folder, on the CPU.

    Args:
        name: what sentence-transformers takes.
        key: of the recipe that names it, or what else it is, for messages.

    Raises:
        ModelError: there is no such model, it is damaged, or it wants code of its own to be run.
    """
    try:
        foreign = [kind for kind in _module_classes(name) if not OWN_CLASS.fullmatch(kind)]
        if foreign:
            raise ModelError(
                f"{key}: '{name}' brings code of its own ({', '.join(map(repr, foreign))} "
                f"in {MODULES_FILE}), which is never run; "
                "take a model whose parts are those of sentence-transformers"
            )
        return SentenceTransformer(name, device="cpu", trust_remote_code=False)
    except ModelError:
        raise
    except BROKEN as error:
        if is_of_pickle(error):
            raise ModelError(
                f"{key}: the weights of '{name}' hold pickled objects, which are never loaded"
            ) from None
        if "trust_remote_code" in str(error):
            raise ModelError(f"{key}: '{name}' brings code of its own, which is never run") from None
        raise ModelError(
            f"{key}: cannot open '{name}': {' '.join(str(error).split())}; wanted a name on the "
            "Hub or the folder of a sentence-transformers or transformers model"
        ) from error


def _module_classes(name: str) -> Iterator[str]:
    """The classes that a model names, those inside routers among them; none of a plain transformers model."""
    if "/" not in name and not Path(name).exists():
        return  # a short name of the libraries' own organisations on the Hub
    for module in _read(name, "", MODULES_FILE) or ():
        yield from _with_inner(name, str(module["path"]), str(module["type"]))


def _with_inner(name: str, folder: str, kind: str) -> Iterator[str]:
    yield kind
    if kind.rpartition(".")[2] in ROUTERS:
        contents = [_read(name, folder, file) for file in ROUTER_FILES]
        types: dict[str, Any] = next((content["types"] for content in contents if content), {})
        for place, inner in types.items():
            yield from _with_inner(name, Path(folder, place).as_posix(), str(inner))


def _read(name: str, folder: str, file: str) -> Any:
    path = load_file_path(name, file, subfolder=folder)
    return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
