"""The language model of a run with its tokenizer: opened, built from nothing, saved, loaded."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import is_peft_available

from hf_tasks.errors import ModelError, is_of_pickle
from hf_tasks.tasks.language_model.settings import FromScratch, Generation, Lora, Model

END, PADDING, MASK = "<|endoftext|>", "<|padding|>", "<|mask|>"
LONGEST_BLOCK = 1024


@dataclass(frozen=True)
class LanguageModel:
    """A model, the tokenizer that its token numbers belong to, and how many tokens a block has."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    block_size: int
    is_causal: bool

    @property
    def boundary(self) -> int:
        """The token that stands before each document and after the last."""
        tokenizer = self.tokenizer
        for token in (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id):
            if token is not None:
                return token
        raise ModelError("model.name: its tokenizer has no token that ends a text; wanted eos, sep or bos")


def open_model(settings: Model, *, is_causal: bool) -> LanguageModel | None:
    """The model with its published or local weights; None where it is to be built from nothing.

    Raises:
        ModelError: there is no such model, or it cannot do what the objective asks.
    """
    if settings.name is None:
        return None
    name = settings.name
    if (Path(name) / "model").is_dir() and (Path(name) / "recipe.yaml").is_file():
        name = str(Path(name) / "model")
    auto = AutoModelForCausalLM if is_causal else AutoModelForMaskedLM
    try:
        # Said outright: without it transformers asks whoever sits at the terminal.
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        model = auto.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError, UnpicklingError) as error:
        raise _refusal(settings.name, error, is_causal=is_causal) from error
    if not is_causal and tokenizer.mask_token_id is None:
        raise ModelError(f"objective: masked, and the tokenizer of '{settings.name}' has no mask token")
    _require_padding(tokenizer)
    limit = _positions(model)
    block_size = settings.block_size or min(limit, LONGEST_BLOCK)
    if block_size > limit:
        raise ModelError(f"model.block_size: {block_size} tokens, and the model reads at most {limit}")
    tokenizer.model_max_length = block_size
    return LanguageModel(model, tokenizer, block_size, is_causal)


def _refusal(name: str, error: Exception, *, is_causal: bool) -> ModelError:
    if is_of_pickle(error):
        return ModelError(f"model.name: the weights of '{name}' hold pickled objects, which are never loaded")
    if "trust_remote_code" in str(error):
        return ModelError(
            f"model.name: '{name}' brings code of its own, which is never run; "
            "take a model whose architecture transformers has"
        )
    return ModelError(
        f"model.name: cannot open '{name}': {' '.join(str(error).split())}; wanted a "
        f"{'causal' if is_causal else 'masked'} language model of transformers, by Hub name or folder"
    )


def build_from_scratch(sizes: FromScratch, documents: Iterable[str], *, is_causal: bool) -> LanguageModel:
    """A GPT-2 (causal) or BERT (masked) at random, with a byte-level tokenizer learnt from the documents."""
    tokenizer = _train_tokenizer(sizes, documents, is_causal=is_causal)
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if is_causal:
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=sizes.block_size,
            n_embd=sizes.hidden_size,
            n_layer=sizes.layers,
            n_head=sizes.heads,
            # A small model of much text underfits; dropout would only slow it.
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **special,
        )
        return LanguageModel(GPT2LMHeadModel(config), tokenizer, sizes.block_size, is_causal)
    config = BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=sizes.block_size,
        hidden_size=sizes.hidden_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=4 * sizes.hidden_size,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        type_vocab_size=1,
        **special,
    )
    return LanguageModel(BertForMaskedLM(config), tokenizer, sizes.block_size, is_causal)


def load_language_model(folder: Path) -> LanguageModel:
    """A saved model folder; its architecture says whether it is causal, its tokenizer how long a block is.

    Raises:
        ModelError: the folder holds no language model.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        is_causal = not any(name.endswith("MaskedLM") for name in config.architectures or ())
        auto = AutoModelForCausalLM if is_causal else AutoModelForMaskedLM
        model = auto.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: cannot open the language model: {error}") from error
    return LanguageModel(model, tokenizer, min(tokenizer.model_max_length, _positions(model)), is_causal)


def with_adapters(loaded: LanguageModel, lora: Lora) -> LanguageModel:
    """The model with low-rank adapters, which alone are trained.

    Raises:
        ModelError: peft is not installed.
    """
    if not is_peft_available():
        raise ModelError("model.lora: needs peft; install it with pip install 'hf_tasks[lora]'")
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM" if loaded.is_causal else None,
    )
    return replace(loaded, model=get_peft_model(loaded.model, config))


def set_generation(loaded: LanguageModel, generation: Generation) -> None:
    """Have the model continue text as the recipe says, also after it was saved."""
    is_drawn = generation.temperature > 0
    loaded.model.generation_config = GenerationConfig(
        max_new_tokens=generation.max_new_tokens,
        do_sample=is_drawn,
        **({"temperature": generation.temperature, "top_k": generation.top_k} if is_drawn else {}),
        eos_token_id=loaded.boundary,
        pad_token_id=loaded.tokenizer.pad_token_id,
    )


def keeps_boundaries(loaded: LanguageModel) -> bool:
    """Whether the model, told by position numbers where documents start, lets none see the one before it.

    Tried on two short documents: the second one must come out as if it were alone.
    """
    if not loaded.is_causal:
        return False
    model, length = loaded.model.eval(), min(4, loaded.block_size // 2)
    token_ids_11 = torch.full((1, 1), loaded.boundary, device=model.device)
    alone_1S = torch.arange(length, device=model.device)[None] % model.config.vocab_size
    packed_1S = torch.cat([token_ids_11.expand(1, length), alone_1S], dim=1)
    positions_1S = torch.arange(length, device=model.device).repeat(2)[None]
    with torch.inference_mode():
        try:
            packed = model(input_ids=packed_1S, position_ids=positions_1S, use_cache=False).logits
        except TypeError:  # the architecture takes no position numbers
            return False
        alone = model(input_ids=alone_1S, use_cache=False).logits
    return torch.allclose(packed[:, length:], alone, atol=1e-3)


def _train_tokenizer(
    sizes: FromScratch, documents: Iterable[str], *, is_causal: bool
) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=sizes.vocab_size,
        special_tokens=[END] if is_causal else [END, PADDING, MASK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    masked = {} if is_causal else {"mask_token": MASK, "cls_token": END, "sep_token": END}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END if is_causal else PADDING,
        model_max_length=sizes.block_size,
        model_input_names=["input_ids", "attention_mask"],  # generate refuses others
        **masked,
    )


def _require_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """GPT-2 and its like have no padding token; the end token serves, as the loss leaves padding out."""
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                "model.name: its tokenizer has neither a padding nor an end token; wanted either"
            )
        tokenizer.pad_token = tokenizer.eos_token


def _positions(model: PreTrainedModel) -> int:
    """Tokens that a model reads at once; RoBERTa and its kin keep the positions up to the padding token."""
    limit = getattr(model.config, "max_position_embeddings", LONGEST_BLOCK)
    padding = model.config.pad_token_id
    shifts = "roberta" in model.config.model_type and padding is not None
    return limit - padding - 1 if shifts else limit
