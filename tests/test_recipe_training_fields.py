"""Fields of TrainingArguments read from source, against the real class and a newer spelling."""

import dataclasses

import pytest
from pydantic import ValidationError

from hf_tasks.recipe.training_fields import OWNED, owned_fields, training_model

SOURCE = """
class OptimizerNames(ExplicitEnum):
    ADAMW = "adamw"
    SGD = "sgd"

class Other(Enum):
    A = "a"

default_optim = "adamw"

@dataclass
class TrainingArguments:
    framework = "pt"
    output_dir: str | None = field(default=None)
    seed: int = field(default=42, metadata={"help": "Random "
        "seed."})
    optim: OptimizerNames | str = field(default=default_optim, metadata={"help": "The optimizer."})
    optim_modules: None | str | list[str] = field(default=None)
    scheduler_kwargs: dict | str | None = field(default=None)
    names: list[str] = field(default_factory=list, metadata={"help": f"{1}"})
    backend: str | None = field(default=None, metadata={"choices": ["nccl", "gloo"]})
    fsdp: str | None = field(default=None, metadata={"nargs": "?", "const": True})
    space: str | None | Literal[False] = field(default=None)
    parallel: SomeConfig | None = field(default=None)
    _hidden: int = field(init=False, default=-1)

    def __post_init__(self): pass
"""


@pytest.fixture
def newer_model(tmp_path):
    """The model of a source that spells its types as transformers 5 does."""
    (tmp_path / "training_args.py").write_text(SOURCE)
    (tmp_path / "trainer_utils.py").write_text("")
    (tmp_path / "debug_utils.py").write_text("")
    return training_model(folder=tmp_path)


def test_every_field_of_the_installed_class_is_known_or_owned():
    from transformers import TrainingArguments

    fields = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}

    assert set(training_model().model_fields) == fields - set(OWNED)


def test_every_further_field_of_sentence_transformers_is_known_or_owned():
    from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments

    fields = {field.name for field in dataclasses.fields(SentenceTransformerTrainingArguments) if field.init}

    known = set(training_model("sentence_transformers").model_fields)
    assert known == fields - set(owned_fields("sentence_transformers"))
    assert "learning_rate_mapping" in known - set(training_model().model_fields)


def test_defaults_are_those_of_the_installed_class():
    from transformers import TrainingArguments

    real = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}

    for name, field in training_model().model_fields.items():
        if field.default_factory is None:
            assert field.default == real[name], name


def test_choices_help_and_types_of_the_newer_spelling_are_read(newer_model):
    fields = newer_model.model_json_schema()["properties"]

    assert list(fields) == [
        "seed", "optim", "optim_modules", "scheduler_kwargs", "names", "backend", "fsdp", "space", "parallel"
    ]  # fmt: skip
    assert fields["seed"] == {
        "default": 42,
        "description": "Random seed.",
        "maximum": 2**32 - 1,
        "minimum": 0,
        "title": "Seed",
        "type": "integer",
    }
    assert fields["optim"] == {
        "description": "The optimizer.",
        "enum": ["adamw", "sgd"],
        "title": "Optim",
        "type": "string",
    }


@pytest.mark.parametrize(
    ("name", "fitting", "unfit"),
    [
        ("optim", "sgd", "adam"),
        ("optim_modules", ["q", "k"], 3),
        ("scheduler_kwargs", {"min_lr": 0.1}, [1]),
        ("names", ["loss"], "loss"),
        ("backend", "gloo", "tcp"),
        ("fsdp", True, [1]),
        ("space", False, True),
    ],
)
def test_values_of_the_newer_spelling_are_checked(newer_model, name, fitting, unfit):
    assert getattr(newer_model.model_validate({name: fitting}), name) == fitting

    with pytest.raises(ValidationError, match=name):
        newer_model.model_validate({name: unfit})
