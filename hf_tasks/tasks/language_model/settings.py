"""What a recipe for a language model may say beyond the common sections."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hf_tasks.data.sources import Documents, Section

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Columns(Section):
    """Which column of a table is used."""

    text: str = Field("text", description="Column of documents, in a table or a Hub data set.")


class Data(Section):
    """Documents to train on and to validate with."""

    train: Documents
    validation: Documents | Fraction = Field(
        0.1, description="A source, or about the fraction of train to split off, by a hash of the text."
    )
    columns: Columns = Columns()
    split_seed: int = Field(0, ge=0, description="Seed of the split; kept apart from training.seed.")
    drop_duplicates: bool = Field(
        False, description="Train on equal documents once; they are always counted."
    )


class FromScratch(Section):
    """A small transformer and a byte-level tokenizer, both from nothing."""

    vocab_size: int = Field(4096, ge=300, description="Tokens, learnt from the training text.")
    hidden_size: int = Field(192, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1, description="A divisor of hidden_size.")
    block_size: int = Field(128, ge=8, description="Tokens that the model reads at once.")

    @model_validator(mode="after")
    def _heads_divide(self) -> "FromScratch":
        if self.hidden_size % self.heads:
            raise ValueError(
                f"model.from_scratch.heads: {self.heads} is no divisor of hidden_size {self.hidden_size}"
            )
        return self


class Lora(Section):
    """Low-rank adapters on the linear layers, merged into the weights that are saved (arXiv:2106.09685)."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0, description="The adapters are scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1)


class Model(Section):
    """The network and where its weights come from."""

    name: str | None = Field(None, description="Hub id, or the folder of a model or of an earlier run.")
    from_scratch: FromScratch | None = Field(None, description="Instead of `name`: sizes of a new model.")
    block_size: int | None = Field(
        None,
        ge=8,
        description="Tokens of a block, with `name`; left out: what the model reads, up to 1024.",
    )
    lora: Lora | None = Field(None, description="Train low-rank adapters instead of all weights.")

    @model_validator(mode="after")
    def _one_origin(self) -> "Model":
        if (self.name is None) == (self.from_scratch is None):
            raise ValueError("model: wanted either `name` or `from_scratch: {}`, one of them")
        if self.from_scratch is not None and self.block_size is not None:
            raise ValueError("model.block_size: a new model has it as model.from_scratch.block_size")
        if self.from_scratch is not None and self.lora is not None:
            raise ValueError("model.lora: a new model has no weights worth keeping; leave one of the two out")
        return self


class Generation(Section):
    """How text is continued, in samples and by `predict`; saved with the model."""

    max_new_tokens: int = Field(50, ge=1)
    temperature: float = Field(0.8, ge=0, description="0 always takes the most probable token.")
    top_k: int = Field(50, ge=1, description="Tokens that are drawn from, with a temperature above 0.")
    samples: int = Field(5, ge=0, description="Held-out documents that are continued after training.")


class Settings(Section):
    """The sections of a recipe for a language model."""

    data: Data
    on_bad_example: Literal["error", "skip"] = Field(
        "error", description="Documents that cannot be used: refuse them, or leave them out and list them."
    )
    model: Model
    objective: Literal["causal", "masked"] = Field(
        "causal", description="Predict the next token, or tokens that are masked."
    )
    mask_probability: float = Field(0.15, gt=0, lt=1, description="Share of tokens that `masked` predicts.")
    generation: Generation = Generation()
