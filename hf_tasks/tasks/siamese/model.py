"""The encoder of a siamese run with what turns two embeddings into an answer: opened, built, saved.

Axes: V tokens, D width of the embeddings.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from hf_tasks.data.portions import in_portions
from hf_tasks.errors import ModelError
from hf_tasks.files import write_text
from hf_tasks.tasks.siamese.adapters import load_adapters, save_adapters
from hf_tasks.tasks.siamese.head import DifferenceHead
from hf_tasks.tasks.siamese.opening import open_sentence_transformer
from hf_tasks.tasks.siamese.settings import Model, Static

if TYPE_CHECKING:
    from peft import PeftModel

PAIRS_FILE = "pairs.json"
HEAD_FILE = "difference_head.safetensors"
TEXTS_AT_ONCE = 10_000

logger = logging.getLogger(__name__)


@dataclass
class PairModel:
    """An encoder, and how the embeddings of two texts become a score and a decision."""

    encoder: SentenceTransformer
    head: DifferenceHead | None = None
    """Its sigmoid is the score; without a head the score is the cosine."""
    threshold: float | None = None
    """Score from which a pair is called true; fitted on validation rows."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """What the columns of the training table stand for, and their names."""
    adapters: "PeftModel | None" = None
    """Inside the encoder, while they are trained."""

    def to(self, device: torch.device) -> "PairModel":
        """Move the weights."""
        self.encoder.to(device)
        if self.head is not None:
            self.head.to(device)
        return self

    def merge_adapters(self) -> None:
        """Add the adapters, if any, to the weights that they stand beside, and let go of them."""
        if self.adapters is not None:
            self.adapters.merge_and_unload()
            self.adapters = None

    def preprocess(self, texts: list[str]) -> dict[str, Any]:
        """Model inputs of a batch of texts, with the prompt that the model always wants, if any."""
        prompt = self.encoder.prompts.get(self.encoder.default_prompt_name or "") or None
        return self.encoder.preprocess(texts, prompt=prompt)


def open_encoder(model: Model) -> SentenceTransformer | None:
    """The encoder with its published or local weights; None for static embeddings, which start from nothing.

    A plain transformers model, encoder or decoder, gets mean pooling over the tokens that are not padding.

    Raises:
        ModelError: there is no such model, or it cannot be used.
    """
    if model.name is None:
        return None
    encoder = open_sentence_transformer(_model_of(model.name), key="model.name")
    _set_padding(encoder)
    if model.max_length is not None:
        encoder.max_seq_length = _fitting_length(encoder, model.max_length)
    return encoder


def build_static(static: Static, texts: Iterable[str], *, max_length: int | None) -> SentenceTransformer:
    """An encoder that averages token embeddings, with tokens learnt from texts.

    The embeddings start in random directions, as long as their token is rare (inverse document frequency):
    cosines of texts then are about those of TF-IDF vectors, and training starts from there.

    Args:
        static: sizes.
        texts: to learn tokens and their frequencies from.
        max_length: tokens of a text that are read; None reads all.
    """
    texts = list(texts)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=static.vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if max_length is not None:
        tokenizer.enable_truncation(max_length)
    directions_VD = torch.randn(tokenizer.get_vocab_size(), static.embedding_size)
    weights_VD = directions_VD * _rarities(tokenizer, texts)[:, None] / static.embedding_size**0.5
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, weights_VD)], device="cpu")


def build_head(encoder: SentenceTransformer, *, name: str | None = None) -> DifferenceHead:
    """A head for the encoder's embeddings: of the earlier run of this name if it has one, else at random."""
    width = encoder.get_embedding_dimension()
    assert width is not None
    head = DifferenceHead(width)
    if name is not None and (file := Path(_model_of(name)) / HEAD_FILE).is_file():
        head.load_state_dict(load_file(file))
    return head


def save_pair_model(model: PairModel, folder: Path) -> None:
    """Write the folder that load_pair_model reads, and that `SentenceTransformer(folder)` opens by itself.

    While adapters are trained, they are written instead of the encoder, for load_weights alone.
    """
    if model.adapters is not None:
        save_adapters(model.adapters, folder)
    else:
        # A card of sentence-transformers would quote training texts.
        model.encoder.save_pretrained(str(folder), create_model_card=False)
    facts = {
        "score": "cosine" if model.head is None else "difference-head",
        "threshold": model.threshold,
        "columns": dict(model.columns),
    }
    write_text(folder / PAIRS_FILE, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    if model.head is not None:
        save_file(model.head.state_dict(), folder / HEAD_FILE)


def load_weights(model: PairModel, folder: Path) -> None:
    """Read what save_pair_model wrote of the same model: weights and threshold."""
    if model.adapters is not None:
        load_adapters(model.adapters, folder)
    else:
        saved = open_sentence_transformer(str(folder), key="model")
        model.encoder.load_state_dict(saved.state_dict())
    if model.head is not None:
        model.head.load_state_dict(load_file(folder / HEAD_FILE))
    model.threshold = json.loads((folder / PAIRS_FILE).read_text(encoding="utf-8"))["threshold"]


def load_pair_model(folder: Path) -> PairModel:
    """What save_pair_model wrote.

    Raises:
        ModelError: the folder holds no model of pairs.
    """
    if not (folder / PAIRS_FILE).is_file():
        raise ModelError(f"{folder}: no {PAIRS_FILE} here; wanted the model folder of a siamese run")
    facts = json.loads((folder / PAIRS_FILE).read_text(encoding="utf-8"))
    encoder = open_sentence_transformer(str(folder), key="model")
    head = None
    if facts["score"] == "difference-head":
        head = build_head(encoder)
        head.load_state_dict(load_file(folder / HEAD_FILE))
    return PairModel(encoder, head, facts["threshold"], facts["columns"])


def count_cut_texts(encoder: SentenceTransformer, texts: Iterable[str]) -> int:
    """How many texts have more tokens than the encoder reads."""
    limit = token_limit(encoder)
    if limit is None:
        return 0
    portions = in_portions(texts, len)
    return sum(count > limit for portion in portions for count in count_tokens(encoder, portion))


def token_limit(encoder: SentenceTransformer) -> int | None:
    """Tokens of a text that the encoder reads; None where it reads all, or says nothing."""
    tokenizer = encoder.tokenizer
    if isinstance(tokenizer, Tokenizer):
        return None if tokenizer.truncation is None else tokenizer.truncation["max_length"]
    return encoder.max_seq_length


def count_tokens(encoder: SentenceTransformer, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, those that are cut among them."""
    tokenizer = encoder.tokenizer
    if isinstance(tokenizer, Tokenizer):
        parts = [[found, *found.overflowing] for found in tokenizer.encode_batch(texts)]
        return [sum(len(part.ids) for part in of) for of in parts]
    return [len(ids) for ids in tokenizer(texts, truncation=False, verbose=False)["input_ids"]]


def _model_of(name: str) -> str:
    """The model's folder, if the name is that of a run's; else the name."""
    run = Path(name)
    return str(run / "model") if (run / "model").is_dir() and (run / "recipe.yaml").is_file() else name


def _rarities(tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Inverse document frequency of each token, natural logarithm, float32 (V,)."""
    counts_V = np.ones(tokenizer.get_vocab_size())
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        for encoding in tokenizer.encode_batch_fast(texts[start : start + TEXTS_AT_ONCE]):
            counts_V[np.unique(encoding.ids)] += 1
    return torch.from_numpy(np.log((len(texts) + 1) / counts_V)).float()


def _set_padding(encoder: SentenceTransformer) -> None:
    """Have texts padded where padding changes nothing: behind them, and with a token that pooling leaves out.

    Decoders such as GPT-2 have no padding token; their end token serves. In front of a text, padding would
    move the text to other positions, and its embedding would follow the longest text of its batch.
    """
    tokenizer = encoder.tokenizer
    if isinstance(tokenizer, Tokenizer):
        return
    # Of what a tokenizer is made with, only what was named is saved.
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "right"
    if tokenizer.pad_token is not None:
        return
    if tokenizer.eos_token is None:
        raise ModelError(
            "model.name: its tokenizer has neither a padding nor an end token; wanted one of them"
        )
    tokenizer.pad_token = tokenizer.eos_token


def _fitting_length(encoder: SentenceTransformer, wanted: int) -> int:
    known = encoder.max_seq_length
    if known is not None and wanted > known:
        raise ModelError(f"model.max_length: {wanted} tokens, and the model reads at most {known}")
    return wanted
