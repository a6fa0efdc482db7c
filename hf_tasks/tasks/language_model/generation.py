"""Text that a language model goes on with."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from hf_tasks.contract.exports import Decisions, Network, NetworkWithPast
from hf_tasks.data.documents import load_documents
from hf_tasks.data.sources import TextFile
from hf_tasks.errors import ModelError
from hf_tasks.tasks.language_model.model import LanguageModel, load_language_model

TEXT_SUFFIXES = frozenset({".txt"})
SAMPLE_SEED = 0
# Of a held-out document, this many tokens are the prompt; they are looked for in its first characters.
PROMPT_TOKENS, PROMPT_CHARACTERS = 16, 4096


class NetworkModel(PreTrainedModel, GenerationMixin):
    """An exported network in its model's place, as far as `generate` asks: one text, read from the left."""

    main_input_name = "input_ids"
    device = torch.device("cpu")

    def __init__(self, model: PreTrainedModel, network: Network) -> None:
        """Keep the network, and of the model how it writes."""
        config = copy.deepcopy(model.config)
        config._attn_implementation = "eager"  # the only one that no class has to be made for
        super().__init__(config)
        self.generation_config = model.generation_config
        self.network = network
        self.read = 0

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> dict[str, Tensor]:
        """All tokens so far: what the network has read of them already is for forward to know."""
        return {"input_ids": input_ids}

    def forward(self, input_ids: Tensor, **_: Any) -> CausalLMOutput:
        """Logits of the tokens (1, S), or of those that the network has not read yet."""
        new_1S = input_ids[:, self.read :].numpy()
        mask_1S = np.ones(input_ids.shape, np.int64)
        logits_1SV = self.network({"input_ids": new_1S, "attention_mask": mask_1S})
        if isinstance(self.network, NetworkWithPast):
            self.read = self.network.past_tokens
        return CausalLMOutput(logits=torch.from_numpy(logits_1SV))


def continue_texts(
    loaded: LanguageModel,
    prompts: Sequence[str],
    network: Network | None = None,
    *,
    seed: int = SAMPLE_SEED,
) -> list[str]:
    """What the model goes on with after each prompt, as its generation_config says.

    A prompt that leaves no room in the model's positions loses its beginning. Each prompt is continued by
    itself, so that neither its neighbours nor padding change what is drawn.

    Args:
        loaded: a causal model.
        prompts: beginnings of documents; an empty one starts from nothing.
        network: an exported file that writes in the model's place.
        seed: the same gives the same text.
    """
    model, tokenizer = loaded.model.eval(), loaded.tokenizer
    cached = {} if network is None else {"use_cache": False}
    new_tokens = min(model.generation_config.max_new_tokens or 1, loaded.block_size - 1)
    devices = [model.device] if model.device.type == "cuda" else []
    continuations = []
    for prompt in prompts:
        token_ids = [
            loaded.boundary,
            *tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"],
        ]
        inputs_1S = torch.tensor([token_ids[-(loaded.block_size - new_tokens) :]], device=model.device)
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            torch.manual_seed(seed)
            writer = model if network is None else NetworkModel(model, network)
            output_1S = writer.generate(
                inputs_1S, attention_mask=torch.ones_like(inputs_1S), max_new_tokens=new_tokens, **cached
            )
        new_ids = output_1S[0, inputs_1S.shape[1] :]
        continuations.append(tokenizer.decode(new_ids, skip_special_tokens=True))
    return continuations


def write_greedily(
    loaded: LanguageModel, prompts: Sequence[np.ndarray], network: Network | None, *, tokens: int
) -> Decisions:
    """What is written after each prompt when the most probable token is always taken.

    Args:
        loaded: a causal model, on the CPU.
        prompts: token numbers, int64 (S,).
        network: an exported file that writes in the model's place; None for the model.
        tokens: at most so many are written.

    Returns:
        Tokens (prompts, tokens), written past the ends of documents, and their lead in logits over the
        next best.
    """
    values, margins = [], []
    for prompt_S in prompts:
        writer = loaded.model.eval() if network is None else NetworkModel(loaded.model, network)
        inputs_1S = torch.from_numpy(prompt_S)[None]
        with torch.inference_mode():
            # Each word is said here: what is left out, generate takes from the model's own config.
            written = writer.generate(
                inputs_1S,
                attention_mask=torch.ones_like(inputs_1S),
                max_new_tokens=tokens,
                do_sample=False,
                temperature=1.0,
                top_k=50,
                eos_token_id=None,
                use_cache=network is None,
                return_dict_in_generate=True,
                output_logits=True,
            )
        highest_T2 = torch.cat(written.logits).topk(2).values
        values.append(written.sequences[0, len(prompt_S) :].numpy())
        margins.append((highest_T2[:, 0] - highest_T2[:, 1]).numpy())
    return Decisions(np.stack(values), np.stack(margins))


def sample_texts(loaded: LanguageModel, documents: Sequence[str]) -> list[tuple[str, str]]:
    """The beginning of each document, and what the model goes on with; a masked model gives none."""
    if not loaded.is_causal or not documents:
        return []
    tokenizer = loaded.tokenizer
    beginnings = [document[:PROMPT_CHARACTERS] for document in documents]
    encoded = tokenizer(beginnings, add_special_tokens=False, verbose=False)["input_ids"]
    prompts = [tokenizer.decode(token_ids[:PROMPT_TOKENS]) for token_ids in encoded]
    return list(zip(prompts, continue_texts(loaded, prompts), strict=True))


class TextPredictor:
    """A saved causal model that continues each line of text files."""

    def __init__(self, folder: Path, network: Network | None = None, *, encoding: str = "utf-8") -> None:
        """Load a model folder.

        Args:
            folder: the model with its tokenizer.
            network: an exported file that writes in its place, on the CPU.
            encoding: of the text files.

        Raises:
            ModelError: it holds no model, or a masked one.
        """
        self.encoding = encoding
        self.loaded = load_language_model(folder)
        if not self.loaded.is_causal:
            raise ModelError(f"{folder}: a masked language model continues no text; wanted a causal one")
        self.network = network
        self.loaded.model.to("cuda" if network is None and torch.cuda.is_available() else "cpu")

    def __call__(self, paths: Sequence[Path], *, batch_size: int) -> Iterator[Mapping[str, Any]]:
        """A row of each line that is not blank, in order; prompts are continued one by one.

        Raises:
            DataError: a file cannot be read.
        """
        for path in paths:
            source = TextFile(text=str(path), encoding=self.encoding)
            documents = load_documents(source, column="text", key=str(path))
            for batch in documents.iter(batch_size):
                texts = continue_texts(self.loaded, batch["text"], self.network)
                for prompt, text in zip(batch["text"], texts, strict=True):
                    yield {"file": str(path), "prompt": prompt, "continuation": text, "error": None}
