"""Delivers a finished run: writes its model card, and uploads what others need to the Hub."""

from pathlib import Path
from typing import Any

import yaml

from hf_tasks.artifacts import Artifacts, read_json
from hf_tasks.errors import UserError
from hf_tasks.export.parity import read_records
from hf_tasks.files import write_text
from hf_tasks.hub.card import CardFacts, write_card
from hf_tasks.hub.upload import require_repository_name, upload
from hf_tasks.recipe import Recipe, load_recipe

OWNED = ("export/*", "*.safetensors", "*.safetensors.index.json", "report.html")
"""What a push replaces as a whole: left from an earlier run, it would pass for this one's."""
TIMM_TASKS = ("image-classification", "metric-learning")


def write_run_card(recipe: Recipe, artifacts: Artifacts, *, repository: str | None = None) -> None:
    """Write README.md of a finished run; with a repository, the card says to load the model from there."""
    hub = recipe.hub
    data = read_json(artifacts.data)
    facts = CardFacts(
        name=repository.rpartition("/")[2] if repository else artifacts.folder.resolve().name,
        task=recipe.task,
        load_from=repository or f"{artifacts.folder.resolve().name}/{artifacts.model.name}",
        license=None if hub is None else hub.license,
        datasets=[*([] if hub is None else hub.datasets), *_hub_datasets(data)],
        base_model=find_base_model(recipe),
        metrics=read_json(artifacts.metrics),
        data=data,
        config=read_json(artifacts.model / "config.json"),
        formats=read_records(artifacts.parity),
    )
    write_text(artifacts.card, write_card(facts))


def push(run_folder: Path, repository: str, *, private: bool | None = None) -> str:
    """Upload a finished run: the model at the top, so that transformers loads it from there, and the rest.

    Predictions stay here, as they hold paths of pictures; so do logs and checkpoints.

    Args:
        run_folder: what `train` has written.
        repository: owner/name.
        private: whether a new repository is hidden; None obeys the recipe's `hub.private`, which is true
            unless it says otherwise.

    Returns:
        The address of the repository.

    Raises:
        UserError: no finished run, or the Hub cannot be reached or refuses.
    """
    require_repository_name(repository)
    artifacts = Artifacts(run_folder)
    if not artifacts.recipe.is_file() or not artifacts.metrics.is_file():
        raise UserError(f"{run_folder}: no finished run; wanted a folder that `hf-tasks train` has written")
    recipe = load_recipe(artifacts.recipe)
    write_run_card(recipe, artifacts, repository=repository)
    if private is None:
        private = recipe.hub is None or recipe.hub.private
    message = f"Upload {artifacts.folder.resolve().name} with hf_tasks"
    return upload(published_files(artifacts), repository, private=private, message=message, replaces=OWNED)


def published_files(artifacts: Artifacts) -> dict[str, Path]:
    """What a repository gets: path there to file here."""
    model = {path.relative_to(artifacts.model).as_posix(): path for path in _files(artifacts.model)}
    exports = {path.relative_to(artifacts.folder).as_posix(): path for path in _files(artifacts.exports)}
    single = (artifacts.card, artifacts.recipe, artifacts.metrics, artifacts.environment, artifacts.report)
    return {**model, **exports, **{path.name: path for path in single if path.is_file()}}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _hub_datasets(data: dict[str, Any]) -> list[str]:
    """Names of the Hub's data sets among the sources; a local folder of one is none."""
    sources = [source.get("hub") for source in data.get("sources", {}).values()]
    return list(dict.fromkeys(name for name in sources if name and not Path(name).exists()))


def find_base_model(recipe: Recipe) -> str | None:
    """The repository of the weights that training started from; timm publishes its own under `timm/`."""
    model = yaml.safe_load(recipe.text).get("model") or {}
    name = str(model.get("name", ""))
    is_published = model.get("pretrained", True) and "weights" not in model
    if not is_published or not name or "${" in name or Path(name).exists():
        return None
    return f"timm/{name}" if recipe.task in TIMM_TASKS and "/" not in name else name
