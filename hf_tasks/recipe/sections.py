"""The sections that recipes of every task share."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_STRICT = ConfigDict(extra="forbid", frozen=True)


class Checkpoints(BaseModel):
    """Which checkpoints stay on disk."""

    model_config = _STRICT

    keep_best: int = Field(1, ge=1, description="How many of the best are kept; the last is kept as well.")


class EarlyStopping(BaseModel):
    """When training ends before its last epoch."""

    model_config = _STRICT

    patience: int = Field(ge=1, description="Evaluations without a better result before training stops.")
    threshold: float = Field(0.0, ge=0, description="By how much a result must be better to count.")


class Report(BaseModel):
    """What is shown of a run besides its figures."""

    model_config = _STRICT

    wrong_images: int = Field(
        20, ge=1, le=200, description="Pictures in each gallery of wrong answers of report.html."
    )


class CommonSections(BaseModel):
    """The sections of every recipe; a further one is a further field."""

    model_config = _STRICT

    task: str = Field(description="What is trained.")
    output: str = Field(min_length=1, description="Folder of the run; made if it is not there.")
    training: dict[str, Any] | None = Field(None, description="Fields of transformers.TrainingArguments.")
    checkpoints: Checkpoints = Checkpoints()
    early_stopping: EarlyStopping | None = None
    report: Report = Report()
