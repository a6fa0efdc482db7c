"""Low-rank adapters on an encoder's linear layers: trained alone, saved in checkpoints, merged at the end."""

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers.utils import is_peft_available

from hf_tasks.errors import ModelError
from hf_tasks.tasks.siamese.settings import Lora

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTERS_FILE = "adapters.safetensors"


def add_adapters(encoder: SentenceTransformer, lora: Lora) -> "PeftModel":
    """Put adapters into the encoder and freeze all else of it; what is returned can take them out again.

    Raises:
        ModelError: peft is not installed, or the encoder has no transformer.
    """
    if not is_peft_available():
        raise ModelError("model.lora: needs peft; install it with pip install 'hf_tasks[lora]'")
    if encoder.transformers_model is None:
        raise ModelError("model.lora: the model has no transformer whose layers could be adapted")
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear"
    )
    return get_peft_model(encoder.transformers_model, config)


def save_adapters(adapters: "PeftModel", folder: Path) -> None:
    """Write the adapters' weights alone."""
    from peft import get_peft_model_state_dict

    weights = {name: value.contiguous() for name, value in get_peft_model_state_dict(adapters).items()}
    save_file(weights, folder / ADAPTERS_FILE)


def load_adapters(adapters: "PeftModel", folder: Path) -> None:
    """Read what save_adapters wrote into adapters of the same sizes."""
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(adapters, load_file(folder / ADAPTERS_FILE))
