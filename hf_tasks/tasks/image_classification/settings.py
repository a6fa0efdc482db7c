"""What a recipe for image classification may say beyond the common sections."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hf_tasks.data.sources import Section, Source

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Columns(Section):
    """Which columns of the rows are used."""

    image: str | None = Field(
        None, description="Column of picture paths; left out: image_path, or a Hub set's picture column."
    )
    label: str = Field("label", description="Column of the class, for one class per picture.")
    labels: list[str] | str | None = Field(
        None,
        description="Several classes per picture: the 0/1 columns, or one column of lists or 'a|b' texts.",
    )


class Data(Section):
    """Rows to train on and to validate with."""

    train: Source
    validation: Source | Fraction = Field(
        0.2, description="A source, or the fraction to split off train, stratified."
    )
    columns: Columns = Columns()
    allow_outside: bool = Field(
        False,
        description="Take pictures whose paths or links lead out of the folder that their source names.",
    )
    split_seed: int = Field(0, ge=0, description="Seed of the split; kept apart from training.seed.")


class Model(Section):
    """The network and where its weights come from."""

    name: str = Field(description="timm architecture, Hub id, or the folder of an earlier run.")
    pretrained: bool = Field(True, description="Start from the published weights of `name`.")
    weights: str | None = Field(
        None, description="Local .safetensors or .pth file of weights, instead of published ones."
    )
    image_size: int | None = Field(
        None, ge=8, le=4096, description="Side of the network's input, pixels; left out: its own."
    )
    drop_rate: float = Field(0.0, ge=0, lt=1, description="Dropout before the classifier.")


class CrossEntropy(Section):
    """One class per picture."""

    name: Literal["cross-entropy"] = "cross-entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None,
        description="`balanced` (inverse frequency, mean 1 over the training rows), or weights by class "
        "name; a class that is not named has weight 1.",
    )


class BinaryCrossEntropy(Section):
    """Several classes per picture."""

    name: Literal["binary-cross-entropy"] = "binary-cross-entropy"
    positive_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None,
        description="Weight of a present class: `balanced` (absent / present rows), or numbers by class "
        "name; a class that is not named has weight 1.",
    )


class Asymmetric(Section):
    """Several classes per picture, most of them absent (arXiv:2009.14119)."""

    name: Literal["asymmetric"]
    gamma_negative: float = Field(4.0, ge=0)
    gamma_positive: float = Field(1.0, ge=0)
    clip: float = Field(
        0.05, ge=0, lt=1, description="Probability margin under which absent classes cost nothing."
    )


Loss = Annotated[CrossEntropy | BinaryCrossEntropy | Asymmetric, Field(discriminator="name")]


class PrecisionThreshold(Section):
    """The lowest threshold at which enough of what a class is given to is right."""

    precision: float = Field(gt=0, le=1, description="Share that must be right, such as 0.95.")


class Calibration(Section):
    """What is fitted to the validation rows and kept in the model's config; metrics.json tells its worth."""

    temperature: bool = Field(
        False, description="Divide logits by a number that makes probabilities honest; decisions at 0.5 stay."
    )
    thresholds: Literal["f1"] | PrecisionThreshold | None = Field(
        None, description="Several classes: a threshold each, by f1 or `{precision: 0.95}`; left out: 0.5."
    )


class Settings(Section):
    """The sections of an image classification recipe."""

    unused_arguments: ClassVar[Mapping[str, str]] = {
        "group_by_length": "pictures have no length",
        "label_smoothing_factor": "use loss.label_smoothing",
        "neftune_noise_alpha": "it is for embeddings of words",
        "use_liger_kernel": "it is for language models",
    }

    data: Data
    on_bad_example: Literal["error", "skip"] = Field(
        "error", description="Rows that cannot be used: refuse them, or leave them out and list them."
    )
    model: Model
    augmentation: str = Field("light", description="none, light, medium, hard, or the path of a YAML file.")
    cache: bool = Field(
        False, description="Decode pictures once, and train from what is kept below HF_DATASETS_CACHE."
    )
    loss: Loss | None = Field(
        None, description="Left out: cross-entropy, or binary-cross-entropy for several classes."
    )
    calibration: Calibration = Calibration()
    metrics: list[str] = Field([], description="Further metrics of the evaluate library, by name.")

    @model_validator(mode="after")
    def _loss_fits_labels(self) -> "Settings":
        several = self.data.columns.labels is not None
        if self.loss is not None and several == (self.loss.name == "cross-entropy"):
            wanted = "binary-cross-entropy or asymmetric" if several else "cross-entropy"
            raise ValueError(
                f"loss.name: '{self.loss.name}' does not fit data.columns, which name "
                f"{'several labels' if several else 'one label'}; wanted {wanted}"
            )
        return self

    @model_validator(mode="after")
    def _thresholds_fit_labels(self) -> "Settings":
        if self.calibration.thresholds is not None and self.data.columns.labels is None:
            raise ValueError(
                "calibration.thresholds: data.columns name one label, whose decision is the most probable "
                "class; wanted several labels (data.columns.labels), or no thresholds"
            )
        return self
