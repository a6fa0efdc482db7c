"""Backbones of timm: architecture, data configuration, and weights from the Hub, a file or an earlier run."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from timm.models import get_pretrained_cfg, load_state_dict
from torch import Tensor, nn

from hf_tasks.errors import ModelError, is_of_pickle
from hf_tasks.hub.connection import why_unreachable

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SHOWN_CHARACTERS = 200
# What PyTorch, timm and safetensors raise on a file that holds no weights.
UNREADABLE = (
    UnpicklingError, SafetensorError, RuntimeError, EOFError, LookupError, ValueError, TypeError,
    AttributeError, AssertionError,
)  # fmt: skip


@dataclass(frozen=True)
class OpenedWeights:
    """An architecture with all that is needed to build it, read before any data is."""

    architecture: str
    pretrained_cfg: Mapping[str, Any]
    """timm's configuration: input_size, mean, std, interpolation, crop_pct, classifier."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """By timm's names; empty means random weights."""
    class_names: tuple[str, ...] = ()
    """Classes of an earlier run's head, in its order; empty when not known."""
    model_args: Mapping[str, Any] = field(default_factory=dict)


def open_weights(
    name: str, *, pretrained: bool, weights: str | None = None, image_size: int | None = None
) -> OpenedWeights:
    """Read an architecture's configuration and weights.

    Args:
        name: timm architecture (`resnet18` or `resnet18.a1_in1k`), Hub id, or the folder of an earlier run.
        pretrained: take the published weights; a folder always gives its own.
        weights: local .safetensors or .pth file that replaces the published weights.
        image_size: side of the network's input, pixels; None keeps the configuration's.

    Raises:
        ModelError: no such architecture, no network, or an unreadable file.
    """
    folder = _run_folder(name)
    if folder is not None:
        opened = _open_folder(folder)
    elif "/" in name:
        opened = _open_hub(name, fetch_tensors=pretrained and weights is None)
    else:
        opened = _open_timm(name, fetch_tensors=pretrained and weights is None)
    tensors = opened.tensors if weights is None else _load_tensors(Path(weights), key="model.weights")
    config = dict(opened.pretrained_cfg)
    model_args = dict(opened.model_args)
    if image_size is not None:
        config["input_size"] = [3, image_size, image_size]
        if config.get("fixed_input_size"):
            model_args["img_size"] = image_size
    return OpenedWeights(opened.architecture, config, tensors, opened.class_names, model_args)


def build_backbone(opened: OpenedWeights, *, classes: int, keep_head: bool) -> nn.Module:
    """A timm model with the opened weights; every tensor must find its place.

    Args:
        opened: what open_weights returned.
        classes: width of the classifier; 0 leaves it out.
        keep_head: take the classifier from the weights too, where its width agrees.

    Raises:
        ModelError: the weights are of another architecture.
    """
    arguments = {**opened.model_args, "num_classes": classes}
    fresh = timm.create_model(opened.architecture, pretrained=False, **arguments)
    if not opened.tensors:
        return fresh
    head = {key: value for key, value in fresh.state_dict().items() if _is_head(key, opened)}
    kept = keep_head and all(
        key in opened.tensors and opened.tensors[key].shape == head[key].shape for key in head
    )
    body = {key: value for key, value in opened.tensors.items() if kept or not _is_head(key, opened)}
    overlay = {"state_dict": body if kept else {**body, **head}, "num_classes": classes, "label_offset": 0}
    try:
        return timm.create_model(
            opened.architecture,
            pretrained=True,
            pretrained_cfg={
                **opened.pretrained_cfg,
                "architecture": opened.architecture,
                "source": "",
                **overlay,
            },
            **arguments,
        )
    except (RuntimeError, KeyError, AttributeError) as error:
        reason = "\n".join(line[:SHOWN_CHARACTERS] for line in str(error).splitlines()[:6])
        raise ModelError(
            f"model.weights: they do not fit {opened.architecture}: {reason}\n"
            "Name the architecture that the weights were saved from."
        ) from error


def require_buildable(opened: OpenedWeights) -> None:
    """Check that the architecture takes a picture of its size, before any data is read.

    Raises:
        ModelError: it does not; the message is timm's or PyTorch's.
    """
    try:
        model = timm.create_model(opened.architecture, pretrained=False, num_classes=2, **opened.model_args)
        with torch.no_grad():
            model.eval()(torch.zeros(1, *opened.pretrained_cfg["input_size"]))
    except (AssertionError, ValueError, RuntimeError, TypeError) as error:
        raise ModelError(
            f"model: {opened.architecture} cannot be built with an input of "
            f"{opened.pretrained_cfg['input_size']}: {error}; try another model.image_size"
        ) from error


def head_width(opened: OpenedWeights) -> int | None:
    """Number of classes of the opened weights' classifier; None when there is none."""
    widths = [value.shape[0] for key, value in opened.tensors.items() if _is_head(key, opened)]
    return widths[0] if widths else None


def _is_head(key: str, opened: OpenedWeights) -> bool:
    classifiers = opened.pretrained_cfg.get("classifier") or ()
    names = (classifiers,) if isinstance(classifiers, str) else classifiers
    return any(key in (f"{name}.weight", f"{name}.bias") for name in names)


def _run_folder(name: str) -> Path | None:
    folder = Path(name)
    candidates = (folder, folder / "model")
    found = next((place for place in candidates if (place / CONFIG_FILE).is_file()), None)
    if found is None and folder.is_dir():
        raise ModelError(
            f"model.name: {name} holds no model; wanted a folder with {CONFIG_FILE} or model/{CONFIG_FILE}"
        )
    return found


def _open_folder(folder: Path) -> OpenedWeights:
    config = _load_config(folder / CONFIG_FILE)
    return _opened(config, _load_tensors(folder / WEIGHTS_FILE, key="model.name"))


def _open_hub(name: str, *, fetch_tensors: bool) -> OpenedWeights:
    config = _load_config(_fetch(name, CONFIG_FILE))
    tensors = _load_tensors(_fetch(name, WEIGHTS_FILE), key="model.name") if fetch_tensors else {}
    return _opened(config, tensors)


def _open_timm(name: str, *, fetch_tensors: bool) -> OpenedWeights:
    architecture = name.split(".", maxsplit=1)[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        raise ModelError(
            f"model.name: no timm architecture and no folder '{name}'"
            + (f"; did you mean '{near[0]}'? (near it: {', '.join(near)})" if near else "")
        )
    published = timm.list_pretrained(f"{architecture}.*")
    if "." in name and name not in published:
        raise ModelError(
            f"model.name: no weights called '{name}'; {architecture} has {', '.join(published) or 'none'}"
        )
    config = get_pretrained_cfg(name)
    settings = config.to_dict()
    if not fetch_tensors:
        return OpenedWeights(architecture, settings)
    if not config.hf_hub_id:
        raise ModelError(
            f"model.pretrained: nobody has published weights for '{name}'. "
            "Set model.pretrained: false to train from random weights, or name a file in model.weights."
        )
    path = _fetch(config.hf_hub_id, config.hf_hub_filename or WEIGHTS_FILE)
    return OpenedWeights(architecture, settings, _load_tensors(path, key="model.name"))


def _opened(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> OpenedWeights:
    return OpenedWeights(
        config["architecture"],
        config["pretrained_cfg"],
        tensors,
        tuple(config.get("label_names") or ()),
        config.get("model_args") or {},
    )


def _load_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"model.name: cannot read {path}: {error}") from error
    missing = [key for key in ("architecture", "pretrained_cfg") if key not in config]
    if missing:
        raise ModelError(
            f"model.name: {path} is not of a timm model (it lacks {' and '.join(missing)}); "
            "wanted a timm model on the Hub or the folder of an earlier run"
        )
    return config


def _load_tensors(path: Path, *, key: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"{key}: no file {path}")
    try:
        # weights_only: a file of weights never runs code.
        tensors = load_state_dict(str(path), use_ema=True, weights_only=True)
    except UNREADABLE as error:
        raise ModelError(f"{key}: {path} {_why_unreadable(error)}") from error
    named = {name.removeprefix("timm_model."): value for name, value in tensors.items()}
    if not named or not all(isinstance(value, Tensor) for value in named.values()):
        raise ModelError(f"{key}: {path} holds no state dict of tensors")
    return named


def _why_unreadable(error: Exception) -> str:
    """What is wrong with a file of weights, and what to do; never to run the code that is in it."""
    # Newer releases of timm wrap the refusal of PyTorch, and advise to trust the file.
    if is_of_pickle(error):
        return (
            "is not a file of weights, or holds pickled objects, which are never loaded; "
            "save the tensors alone, best as .safetensors"
        )
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        f"is not a file of weights ({reason}); wanted a .safetensors file, "
        "or a .pth file that holds tensors only"
    )


def _fetch(repository: str, filename: str) -> Path:
    unreachable = why_unreachable()
    try:
        return Path(hf_hub_download(repository, filename, local_files_only=unreachable is not None))
    except (
        LocalEntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        ConnectionError,
        TimeoutError,
    ) as error:
        reason = str(error).strip().splitlines()[0]
        if unreachable is not None:
            reason = f"{unreachable}, and the file is not in the local cache"
        raise ModelError(
            f"model.name: cannot fetch {filename} of {repository} from the Hub: {reason}\n"
            "Check the name and the network, or set model.weights to a local .safetensors or .pth file, "
            "or model.pretrained: false to start from random weights."
        ) from error
