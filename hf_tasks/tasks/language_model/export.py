"""How a language model is exported: tokens to logits, judged by how well they foresee held-out text.

Legend of axes: N texts, B batch, S tokens, V vocabulary, P prompts, T tokens written.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.utils import is_peft_available

from hf_tasks.contract.exports import Arrays, Decisions, ExportPlan
from hf_tasks.metrics.language import compute_language
from hf_tasks.tasks.language_model.blocks import NO_LABEL, CausalBlocks, MaskedBlocks, pack
from hf_tasks.tasks.language_model.data import DocumentSplits
from hf_tasks.tasks.language_model.generation import write_greedily
from hf_tasks.tasks.language_model.model import LanguageModel, keeps_boundaries
from hf_tasks.tasks.language_model.settings import Settings

OUTPUT = "logits"
TOKENS = {0: "batch", 1: "tokens"}
# A file of this many tokens is traced and timed.
EXAMPLE_TOKENS = 64
# Logits that are compared at once, 256 MiB of them.
LOGITS_AT_ONCE = 2**26
PROMPTS, PROMPT_TOKENS, WRITTEN_TOKENS = 8, 16, 32
MASK_SEED = 0
REFUSED_WITH_PAST = {
    "torchscript": "torch.jit cannot trace how it builds the mask of what a token may look at; take onnx",
    "triton": "every request would have to carry the keys and values of the text before it; serve onnx with "
    "a server of language models",
}


@dataclass(frozen=True)
class HeldOutTexts:
    """Pieces of held-out text, each read by itself, and the tokens to foresee at each place."""

    input_ids: Sequence[np.ndarray]
    labels: Sequence[np.ndarray]
    text_bytes: int | None
    """UTF-8 bytes of all of them; None where only masked tokens are foreseen."""

    def batch(self, rows: Sequence[int]) -> Arrays:
        """`input_ids` and `attention_mask` of some, int64 (B, S)."""
        chosen = [self.input_ids[row] for row in rows]
        masks = [np.ones_like(ids_S) for ids_S in chosen]
        return {"input_ids": _padded(chosen, 0), "attention_mask": _padded(masks, 0)}

    def labels_of(self, rows: Sequence[int]) -> np.ndarray:
        """Labels of some, int64 (B, S), NO_LABEL where nothing is foreseen."""
        return _padded([self.labels[row] for row in rows], NO_LABEL)

    def share_of(self, rows: Sequence[int]) -> float:
        """How much of the text some of them are, by tokens."""
        count = sum(len(self.labels[row]) for row in rows)
        return count / sum(map(len, self.labels))


def exported_module(model: LanguageModel) -> PreTrainedModel:
    """What is exported of a model; of one with adapters what they were put into."""
    network = model.model.to("cpu").eval()
    if is_peft_available():
        from peft import PeftModel

        if isinstance(network, PeftModel):
            return network.get_base_model()
    return network


def plan_export(settings: Settings, model: LanguageModel, splits: DocumentSplits) -> ExportPlan:
    """The plan for a causal model with its past, or for a masked one.

    An example of the proof is a document inside a block, read from its start, or a whole block where the
    model cannot keep documents apart: what evaluation reads. Its answers are, for each token, nats of the
    true one, the most probable one, and its lead over the next.
    """
    texts = held_out_texts(settings, model, splits)
    network = exported_module(model)
    longest = max(map(len, texts.input_ids))
    tokens = min(longest, EXAMPLE_TOKENS)
    vocabulary = network.config.vocab_size
    return ExportPlan(
        model=network,
        inputs={name: torch.from_numpy(value) for name, value in _example(texts, tokens).items()},
        output=OUTPUT,
        axes={"input_ids": TOKENS, "attention_mask": TOKENS, OUTPUT: TOKENS},
        optimum_task="text-generation-with-past" if model.is_causal else "fill-mask",
        rows=len(texts.input_ids),
        batches=lambda rows, size: _batches(texts, rows, size),
        calibration=lambda examples: iter(()),
        answers=lambda logits_BSV, rows: _answers(logits_BSV, texts.labels_of(rows), longest),
        decide=lambda answers_NS3, rows: _decide(answers_NS3, texts.labels_of(rows)),
        metric="bits_per_byte" if model.is_causal else "loss",
        measure=lambda answers_NS3, rows: _measure(answers_NS3, texts, rows),
        lower_is_better=True,
        batch_size=max(1, min(32, LOGITS_AT_ONCE // (longest * vocabulary))),
        facts=_facts(model, splits),
        save_beside=lambda folder: _save_beside(model, network, folder),
        write=_writer(model, texts) if model.is_causal else None,
        refused=refused_formats(settings),
    )


def refused_formats(settings: Settings) -> Mapping[str, str]:
    """Formats that a causal model cannot keep, each with the reason."""
    return REFUSED_WITH_PAST if settings.objective == "causal" else {}


def held_out_texts(settings: Settings, model: LanguageModel, splits: DocumentSplits) -> HeldOutTexts:
    """The validation rows as an exported network is fed with them."""
    packed = pack(splits.validation, model)
    if model.is_causal:
        blocks = CausalBlocks(packed, model, keep_rest=True, positions=keeps_boundaries(model))
        return _causal_texts(blocks)
    masked = MaskedBlocks(
        packed, model, keep_rest=True, probability=settings.mask_probability, seed=MASK_SEED
    )
    inputs, labels = [], []
    for block in range(len(masked)):
        item = masked[block]
        length = int(item["attention_mask"].sum())
        inputs.append(item["input_ids"][:length].numpy())
        labels.append(item["labels"][:length].numpy())
    return HeldOutTexts(inputs, labels, None)


def _causal_texts(blocks: CausalBlocks) -> HeldOutTexts:
    """The blocks, cut where documents begin if the model is told where they do."""
    tokens = np.asarray(blocks.tokens, np.int64)
    count = len(tokens) - 1
    cuts = set(range(0, count, blocks.block_size))
    if blocks.positions:
        cuts |= set(np.flatnonzero(tokens[:-1] == blocks.boundary).tolist())
    inner = sorted(cuts - {0})
    return HeldOutTexts(np.split(tokens[:-1], inner), np.split(tokens[1:], inner), blocks.text_bytes)


def _example(texts: HeldOutTexts, tokens: int) -> Arrays:
    """Two texts of the same number of tokens: the longest, twice."""
    longest = max(range(len(texts.input_ids)), key=lambda row: len(texts.input_ids[row]))
    return {name: value[:, :tokens].copy() for name, value in texts.batch([longest, longest]).items()}


def _batches(texts: HeldOutTexts, rows: Sequence[int], size: int) -> Iterator[Arrays]:
    for start in range(0, len(rows), size):
        yield texts.batch(rows[start : start + size])


def _padded(values: Sequence[np.ndarray], filler: int) -> np.ndarray:
    longest = max(map(len, values))
    return np.stack(
        [np.pad(value_S, (0, longest - len(value_S)), constant_values=filler) for value_S in values]
    )


def _answers(logits_BSV: np.ndarray, labels_BS: np.ndarray, longest: int) -> np.ndarray:
    """Nats of the label, most probable token and its lead in logits, float32 (B, longest, 3)."""
    logits = torch.from_numpy(logits_BSV).float()
    nats_BS = functional.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(labels_BS).flatten(), ignore_index=NO_LABEL, reduction="none"
    ).view(labels_BS.shape)
    highest = logits.topk(2, dim=-1)
    leads_BS = highest.values[..., 0] - highest.values[..., 1]
    answers_BS3 = torch.stack([nats_BS, highest.indices[..., 0].float(), leads_BS], dim=-1).numpy()
    return np.pad(answers_BS3, ((0, 0), (0, longest - labels_BS.shape[1]), (0, 0)))


def _decide(answers_NS3: np.ndarray, labels_NS: np.ndarray) -> Decisions:
    """The most probable token at each place where one is foreseen."""
    asked = answers_NS3[:, : labels_NS.shape[1]][labels_NS != NO_LABEL]
    return Decisions(asked[:, 1], asked[:, 2])


def _measure(answers_NS3: np.ndarray, texts: HeldOutTexts, rows: Sequence[int]) -> float:
    """Bits per byte, or nats a masked token; of a part of the texts with its share of their bytes."""
    tokens = int((texts.labels_of(rows) != NO_LABEL).sum())
    nats_N = answers_NS3[..., 0].sum(axis=1, dtype=np.float64)
    figures = compute_language(nats_N, np.array([tokens]), text_bytes=None)
    if texts.text_bytes is None:
        return figures["loss"]
    return float(nats_N.sum()) / math.log(2) / (texts.text_bytes * texts.share_of(rows))


def _writer(model: LanguageModel, texts: HeldOutTexts) -> Any:
    """What writes on after the first texts, cut to a few tokens; the beginnings stay the same."""
    room = min(PROMPT_TOKENS, model.block_size // 2)
    prompts = [ids_S[:room] for ids_S in texts.input_ids[:PROMPTS]]
    tokens = min(WRITTEN_TOKENS, model.block_size - room)
    return lambda network: write_greedily(model, prompts, network, tokens=tokens)


def _save_beside(model: LanguageModel, network: PreTrainedModel, folder: Path) -> None:
    """What Optimum's ORTModel and pipelines look for."""
    network.config.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    generation = getattr(network, "generation_config", None)  # transformers 5 gives masked models none
    if generation is not None:
        generation.save_pretrained(folder)


def _facts(model: LanguageModel, splits: DocumentSplits) -> dict[str, Any]:
    return {
        "objective": "causal" if model.is_causal else "masked",
        "block_size": model.block_size,
        "boundary_token": model.boundary,
        "data_fingerprint": splits.facts.get("fingerprint"),
    }
