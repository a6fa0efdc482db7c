"""What a recipe for text pairs may say beyond the common sections."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hf_tasks.data.sources import Section, TextRows

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Columns(Section):
    """Which columns of the rows are used."""

    text_1: str = Field("text_1", description="Column of the first text.")
    text_2: str = Field("text_2", description="Column of the second text.")
    label: str | None = Field(
        "label",
        description="Column of 0 and 1, or of scores in [0, 1]; null for pairs that all belong together.",
    )
    negative: str | None = Field(
        None, description="Column of a text that does not belong to the first; then there is no label."
    )

    @model_validator(mode="after")
    def _label_or_negative(self) -> "Columns":
        if self.negative is not None and self.label is not None and "label" in self.model_fields_set:
            raise ValueError(
                "data.columns.negative: triplets have no label; leave out `label`, or leave out `negative`"
            )
        names = list(self.named().values())
        if len(set(names)) < len(names):
            raise ValueError(f"data.columns: a column stands for two things among {names}; name each once")
        return self

    def named(self) -> dict[str, str]:
        """What a column stands for, and its name: of all columns that are read."""
        label = None if self.negative is not None else self.label
        parts = {"text_1": self.text_1, "text_2": self.text_2, "negative": self.negative, "label": label}
        return {part: name for part, name in parts.items() if name is not None}


class Data(Section):
    """Pairs to train on and to validate with."""

    train: TextRows
    validation: TextRows | Fraction = Field(
        0.2, description="A source, or the fraction to split off train; no text is then on both sides."
    )
    columns: Columns = Columns()
    split_seed: int = Field(0, ge=0, description="Seed of the split; kept apart from training.seed.")


class Static(Section):
    """An embedding a token, their mean a text; trained from nothing, fast without an accelerator."""

    embedding_size: int = Field(256, ge=2, le=8192)
    vocab_size: int = Field(8192, ge=300, description="Tokens, learnt from the training texts.")


class Lora(Section):
    """Low-rank adapters on the linear layers, merged into the weights that are saved (arXiv:2106.09685)."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0, description="The adapters are scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1)


class Model(Section):
    """The encoder and where its weights come from."""

    name: str | None = Field(
        None,
        description="Hub id or folder of a sentence-transformers or transformers model, or an earlier run.",
    )
    static: Static | None = Field(
        None, description="Instead of `name`: token embeddings trained from nothing."
    )
    max_length: int | None = Field(
        None, ge=2, description="Tokens of a text that are read; left out: as many as the model can."
    )
    lora: Lora | None = Field(None, description="Train low-rank adapters instead of all weights.")

    @model_validator(mode="after")
    def _one_origin(self) -> "Model":
        if (self.name is None) == (self.static is None):
            raise ValueError("model: wanted either `name` or `static: {}`, one of them")
        if self.lora is not None and self.static is not None:
            raise ValueError("model.lora: static embeddings have no linear layers; leave one of the two out")
        return self


class CosineSimilarity(Section):
    """Squared difference of the cosine and the label."""

    name: Literal["cosine-similarity"]


class Contrastive(Section):
    """True pairs are drawn together, false ones pushed beyond a margin (Hadsell et al., 2006)."""

    name: Literal["contrastive"]
    margin: float = Field(0.5, gt=0, le=2, description="Cosine distance from which false pairs cost nothing.")


class OnlineContrastive(Section):
    """The same, over the hardest pairs of each batch."""

    name: Literal["online-contrastive"]
    margin: float = Field(0.5, gt=0, le=2, description="Cosine distance from which false pairs cost nothing.")


class CoSent(Section):
    """Pairs of a batch are ranked as their labels are."""

    name: Literal["cosent"] = "cosent"
    scale: float = Field(20.0, gt=0, description="Inverse temperature of the cosines.")


class MultipleNegatives(Section):
    """All other texts of a batch are negatives (arXiv:1705.00652); of labelled pairs, the true ones train."""

    name: Literal["multiple-negatives"] = "multiple-negatives"
    scale: float = Field(20.0, gt=0, description="Inverse temperature of the cosines.")


class DifferenceHead(Section):
    """A linear layer on |u - v| and binary cross entropy; saved with the model, and trained on with it."""

    name: Literal["difference-head"]


Loss = Annotated[
    CosineSimilarity | Contrastive | OnlineContrastive | CoSent | MultipleNegatives | DifferenceHead,
    Field(discriminator="name"),
]


class Analytics(Section):
    """Tables about the validation texts: neighbours.csv, duplicates.csv, clusters.csv."""

    neighbours: int = Field(5, ge=1, le=1000, description="Nearest texts of each text.")
    duplicates_from: float | None = Field(
        None, description="Score from which two neighbours are told as duplicates; left out: the threshold."
    )
    smallest_cluster: int | None = Field(
        5,
        ge=2,
        description="Texts that make a cluster (HDBSCAN of each text's neighbours); null leaves them out.",
    )


class Settings(Section):
    """The sections of a recipe for text pairs."""

    arguments_library: ClassVar[str] = "sentence_transformers"

    data: Data
    on_bad_example: Literal["error", "skip"] = Field(
        "error", description="Rows that cannot be used: refuse them, or leave them out and list them."
    )
    model: Model
    loss: Loss | None = Field(
        None, description="Left out: cosent for labelled pairs, multiple-negatives for others."
    )
    analytics: Analytics | None = Field(None, description="Left out: no such tables.")

    @model_validator(mode="after")
    def _loss_fits_columns(self) -> "Settings":
        has_labels = "label" in self.data.columns.named()
        if self.loss is not None and self.loss.name != "multiple-negatives" and not has_labels:
            raise ValueError(
                f"loss.name: '{self.loss.name}' needs labels, and data.columns name none; "
                "wanted multiple-negatives"
            )
        return self
