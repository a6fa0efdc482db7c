"""The sections that recipes of every task share."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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


class MLflow(BaseModel):
    """Where MLflow is told of the run."""

    model_config = _STRICT

    experiment: str = Field(min_length=1, description="Experiment of the run; made if it is not there.")
    tracking_uri: str | None = Field(
        None,
        min_length=1,
        description="Address of the server; left out: MLFLOW_TRACKING_URI, else mlflow.db beside the run.",
    )
    register_as: str | None = Field(
        None, min_length=1, description="Name to register the final model under; left out: not registered."
    )


class Report(BaseModel):
    """What is shown of a run besides its figures."""

    model_config = _STRICT

    wrong_images: int = Field(
        20, ge=1, le=200, description="Pictures in each gallery of wrong answers of report.html."
    )
    mlflow: MLflow | None = Field(None, description="Tell MLflow; needs the extra mlflow.")
    tensorboard: bool = Field(False, description="Write logs/ for TensorBoard; needs the extra tensorboard.")


class Hub(BaseModel):
    """Where the finished run is uploaded to."""

    model_config = _STRICT

    repo: str = Field(description="Repository, owner/name; made if it is not there.")
    private: bool = Field(True, description="Hide a new repository from others.")
    license: str | None = Field(None, description="Licence of the model, such as apache-2.0, for its card.")
    datasets: list[str] = Field([], description="Data sets on the Hub that the card names.")

    @field_validator("repo")
    @classmethod
    def _has_owner(cls, repo: str) -> str:
        if not re.fullmatch(r"[\w.\-]+/[\w.\-]+", repo, re.ASCII):
            raise ValueError(f"found {repo!r}, wanted owner/name")
        return repo


class Pruning(BaseModel):
    """Which weights are set to zero, for good."""

    model_config = _STRICT

    method: Literal["l1", "ln-structured", "random"] = Field(
        "l1", description="Smallest weights, filters of the smallest norm, or weights by lot."
    )
    amount: float = Field(gt=0, lt=1, description="Share of each layer's weights (or filters) that is zero.")
    layers: list[str] | None = Field(
        None,
        description="Patterns of layer names, as '*.conv1'; left out: every convolution and linear.",
    )
    at: Literal["epoch", "end"] = Field(
        "epoch", description="epoch: step by step, training mends what is left; end: once, after training."
    )
    schedule: Literal["linear", "cubic", "constant"] = Field(
        "cubic", description="How the amount grows over the epochs; cubic takes most of it early."
    )
    norm: float = Field(2.0, gt=0, description="Of ln-structured.")


ExportFormat = Literal["onnx", "onnx-fp16", "onnx-int8", "torchscript", "torchao-int8", "triton"]
Share = Annotated[float, Field(ge=0, le=1)]


class ExportTolerance(BaseModel):
    """How far an exported file may stray from PyTorch; what is left out keeps its strict default."""

    model_config = _STRICT

    difference: float | None = Field(
        None, ge=0, description="onnx, torchscript: of outputs, as a share of the largest; default 1e-4."
    )
    agreement: Share | None = Field(
        None, description="onnx, torchscript: share of examples decided alike, ties aside; default 1."
    )
    metric_loss: Share | None = Field(
        None, description="Of the task's own metric; default onnx-fp16: 0.005, onnx-int8, torchao-int8: 0.01."
    )


class ExportBudget(BaseModel):
    """What the exported model may cost; the best format within it is marked."""

    model_config = _STRICT

    latency_ms: float | None = Field(None, gt=0, description="Median for one example on this machine.")
    max_metric_loss: Share | None = Field(None, description="Of the task's own metric.")


class Export(BaseModel):
    """Formats written after training, each proved on validation examples."""

    model_config = _STRICT

    formats: list[ExportFormat] = Field(min_length=1)
    backend: Literal["auto", "optimum", "torch"] = Field(
        "auto", description="What writes ONNX; auto takes Optimum where it can be imported."
    )
    sample: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        1000, description="Validation examples of the proof, always the same ones."
    )
    image_size: Literal["fixed", "free"] = Field(
        "fixed", description="free: the plain graph takes pictures of other sizes too."
    )
    tolerance: ExportTolerance = ExportTolerance()
    budget: ExportBudget | None = None


class Range(BaseModel):
    """Numbers between two bounds, whole ones where both bounds are."""

    model_config = _STRICT

    low: int | float = Field(description="Smallest value.")
    high: int | float = Field(description="Largest value.")
    log: bool = Field(False, description="Try each order of magnitude as often as the next.")

    @model_validator(mode="after")
    def _has_room(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"found low {self.low} and high {self.high}, wanted low below high")
        if self.log and self.low <= 0:
            raise ValueError(f"found low {self.low}, wanted one above 0 for `log: true`")
        return self


class Choices(BaseModel):
    """Values to choose among; whole sections may be values."""

    model_config = _STRICT

    choices: list[Any] = Field(min_length=1, description="Values that the key may have.")


class Tune(BaseModel):
    """What `hf-tasks tune` searches for."""

    model_config = _STRICT

    search: dict[str, Range | Choices] = Field(
        min_length=1, description="Keys of this recipe, as training.learning_rate, each with its values."
    )
    metric: str | None = Field(
        None, min_length=1, description="What counts; left out: what the best checkpoint is chosen by."
    )
    direction: Literal["maximize", "minimize"] | None = Field(None, description="Of `metric`.")
    prune: bool = Field(True, description="Stop trials that are worse than half of those before.")

    @model_validator(mode="after")
    def _says_what_is_better(self) -> "Tune":
        if (self.metric is None) != (self.direction is None):
            raise ValueError("wanted `metric` and `direction` together, or neither")
        return self


class CommonSections(BaseModel):
    """The sections of every recipe; a further one is a further field."""

    model_config = _STRICT

    task: str = Field(description="What is trained.")
    output: str = Field(min_length=1, description="Folder of the run; made if it is not there.")
    training: dict[str, Any] | None = Field(None, description="Fields of transformers.TrainingArguments.")
    checkpoints: Checkpoints = Checkpoints()
    early_stopping: EarlyStopping | None = None
    report: Report = Report()
    hub: Hub | None = Field(None, description="Upload the finished run to the Hub.")
    pruning: Pruning | None = None
    export: list[ExportFormat] | Export = Field([], description="Formats, or a mapping with `formats:`.")
    tune: Tune | None = Field(None, description="What `hf-tasks tune` searches for.")
