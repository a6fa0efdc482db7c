"""The files that one run leaves, by name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_tasks.errors import UserError
from hf_tasks.files import write_text

MEND = "bring the file back, or delete it and let the command that writes it do so again"


@dataclass(frozen=True)
class Artifacts:
    """Paths of one run folder; nothing is created by asking for them."""

    folder: Path

    @property
    def recipe(self) -> Path:
        """The recipe with its overrides, which re-runs the run."""
        return self.folder / "recipe.yaml"

    @property
    def model(self) -> Path:
        """The best model, as transformers saves it."""
        return self.folder / "model"

    @property
    def checkpoints(self) -> Path:
        """The n best checkpoints and the last."""
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> Path:
        """Figures of the best model on the validation rows."""
        return self.folder / "metrics.json"

    @property
    def predictions(self) -> Path:
        """A row per validation example."""
        return self.folder / "predictions.csv"

    @property
    def data(self) -> Path:
        """Counts, classes and fingerprint of the rows."""
        return self.folder / "data.json"

    @property
    def report(self) -> Path:
        """The page that shows the run."""
        return self.folder / "report.html"

    @property
    def parity(self) -> Path:
        """What each exported format measured."""
        return self.folder / "export" / "parity.json"

    @property
    def environment(self) -> Path:
        """Versions and machine."""
        return self.folder / "environment.json"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.folder / "README.md"

    @property
    def exports(self) -> Path:
        """The model in other formats, a folder each."""
        return self.folder / "export"

    @property
    def logs(self) -> Path:
        """Event files of TensorBoard."""
        return self.folder / "logs"

    @property
    def tracking(self) -> Path:
        """The journal that MLflow is sent."""
        return self.folder / "tracking"


def read_json(path: Path) -> dict[str, Any]:
    """What write_json wrote; nothing where there is no such file.

    Raises:
        UserError: the file holds something else, as one that was cut short does.
    """
    if not path.is_file():
        return {}
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: damaged, found no JSON ({error}); {MEND}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: damaged, found {type(values).__name__}, wanted an object; {MEND}")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON that people can read, aside first, so that a crash leaves the old file or the new one."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
