"""Text that a language model goes on with."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hf_tasks.data.documents import load_documents
from hf_tasks.data.sources import TextFile
from hf_tasks.errors import ModelError
from hf_tasks.tasks.language_model.model import LanguageModel, load_language_model

TEXT_SUFFIXES = frozenset({".txt"})
SAMPLE_SEED = 0
# Of a held-out document, this many tokens are the prompt.
PROMPT_TOKENS = 16


def continue_texts(loaded: LanguageModel, prompts: Sequence[str], *, seed: int = SAMPLE_SEED) -> list[str]:
    """What the model goes on with after each prompt, as its generation_config says.

    A prompt that leaves no room in the model's positions loses its beginning. Each prompt is continued by
    itself, so that neither its neighbours nor padding change what is drawn.

    Args:
        loaded: a causal model.
        prompts: beginnings of documents; an empty one starts from nothing.
        seed: the same gives the same text.
    """
    model, tokenizer = loaded.model.eval(), loaded.tokenizer
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
            output_1S = model.generate(
                inputs_1S, attention_mask=torch.ones_like(inputs_1S), max_new_tokens=new_tokens
            )
        new_ids = output_1S[0, inputs_1S.shape[1] :]
        continuations.append(tokenizer.decode(new_ids, skip_special_tokens=True))
    return continuations


def sample_texts(loaded: LanguageModel, documents: Sequence[str]) -> list[tuple[str, str]]:
    """The beginning of each document, and what the model goes on with; a masked model gives none."""
    if not loaded.is_causal or not documents:
        return []
    tokenizer = loaded.tokenizer
    encoded = tokenizer(list(documents), add_special_tokens=False, verbose=False)["input_ids"]
    prompts = [tokenizer.decode(token_ids[:PROMPT_TOKENS]) for token_ids in encoded]
    return list(zip(prompts, continue_texts(loaded, prompts), strict=True))


class TextPredictor:
    """A saved causal model that continues each line of text files."""

    def __init__(self, folder: Path) -> None:
        """Load a model folder.

        Raises:
            ModelError: it holds no model, or a masked one.
        """
        self.loaded = load_language_model(folder)
        if not self.loaded.is_causal:
            raise ModelError(f"{folder}: a masked language model continues no text; wanted a causal one")
        self.loaded.model.to("cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, paths: Sequence[Path], *, batch_size: int) -> Iterator[Mapping[str, Any]]:
        """A row of each line that is not blank, in order; prompts are continued one by one.

        Raises:
            DataError: a file cannot be read.
        """
        for path in paths:
            documents = load_documents(TextFile(text=str(path)), column="text", key=str(path))
            for batch in documents.iter(batch_size):
                for prompt, text in zip(
                    batch["text"], continue_texts(self.loaded, batch["text"]), strict=True
                ):
                    yield {"file": str(path), "prompt": prompt, "continuation": text, "error": None}
