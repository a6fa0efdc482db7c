"""How an encoder of text pairs is exported: tokens to an embedding, judged by the pairs it tells apart.

Legend of axes: N pairs, K texts a row, B batch, S tokens, V vocabulary, D width.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig

from hf_tasks.contract.exports import Arrays, Decisions, ExportPlan
from hf_tasks.metrics.pairs import compute_labelled_pairs, compute_scored_pairs
from hf_tasks.tasks.siamese.data import PairSplits, labels_of, texts_of
from hf_tasks.tasks.siamese.head import DifferenceHead
from hf_tasks.tasks.siamese.measure import measure
from hf_tasks.tasks.siamese.model import PairModel
from hf_tasks.tasks.siamese.settings import Settings
from hf_tasks.tasks.siamese.texts import pairs_of_texts, scores_of_pairs

OUTPUT, SCORE = "embedding", "score"
TOKENS = {0: "batch", 1: "tokens"}
METRICS = {"labels": "average_precision", "scores": "spearman", "pairs": "mrr", "triplets": "mrr"}


class TextEmbedder(nn.Module):
    """An encoder with its pooling; where the score is a cosine, normalised as well."""

    def __init__(self, encoder: SentenceTransformer, *, normalised: bool) -> None:
        """Keep the encoder."""
        super().__init__()
        # A SentenceTransformer has properties that warn, and tracing asks each for its value.
        self.encoder: Any = nn.Sequential(*encoder)
        self.is_static = isinstance(encoder[0], StaticEmbedding)
        self.normalised = normalised
        self.config = PretrainedConfig() if self.is_static else encoder[0].auto_model.config

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings (B, D) of token numbers (B, S), int64; the mask is 1 for tokens and 0 for padding."""
        if self.is_static:
            embeddings_BD = self._mean_of_tokens(input_ids, attention_mask)
        else:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            embeddings_BD = self.encoder(features)["sentence_embedding"]
        return functional.normalize(embeddings_BD, dim=-1) if self.normalised else embeddings_BD

    def _mean_of_tokens(self, input_ids_BS: Tensor, mask_BS: Tensor) -> Tensor:
        """What StaticEmbedding computes of texts laid end to end, of texts that are padded to one length."""
        weights_VD = self.encoder[0].embedding.weight
        mask_BS1 = mask_BS.unsqueeze(-1).to(weights_VD.dtype)
        sums_BD = (functional.embedding(input_ids_BS, weights_VD) * mask_BS1).sum(dim=1)
        return sums_BD / mask_BS1.sum(dim=1).clamp(min=1.0)


class PairScorer(nn.Module):
    """Both embeddings and the score: the cosine, or the probability of the head."""

    def __init__(self, embedder: TextEmbedder, head: DifferenceHead | None) -> None:
        """Keep the parts."""
        super().__init__()
        self.embedder = embedder
        self.head = head
        self.config = embedder.config

    def forward(
        self, input_ids_1: Tensor, attention_mask_1: Tensor, input_ids_2: Tensor, attention_mask_2: Tensor
    ) -> Tensor:
        """Scores (B,) of pairs of texts, each padded to a length of its own."""
        first_BD = self.embedder(input_ids_1, attention_mask_1)
        second_BD = self.embedder(input_ids_2, attention_mask_2)
        if self.head is None:
            return (first_BD * second_BD).sum(dim=-1)
        return self.head(first_BD, second_BD).sigmoid()


def exported_module(model: PairModel) -> TextEmbedder:
    """What is exported of a saved model."""
    encoder = model.encoder.to("cpu").eval()
    return TextEmbedder(encoder, normalised=model.head is None).eval()


def text_inputs(model: PairModel, texts: Sequence[str]) -> Arrays:
    """`input_ids` and `attention_mask` of texts, int64 (B, S), as the exported networks take them."""
    found = model.preprocess(list(texts))
    tokenizer = model.encoder.tokenizer
    if not isinstance(tokenizer, Tokenizer):
        return {name: found[name].numpy() for name in ("input_ids", "attention_mask")}
    ids_of_text = np.split(found["input_ids"].numpy(), found["offsets"].numpy()[1:])
    longest = max(1, *(len(ids) for ids in ids_of_text))
    input_ids_BS = np.zeros((len(texts), longest), np.int64)
    mask_BS = np.zeros_like(input_ids_BS)
    for place, ids in enumerate(ids_of_text):
        input_ids_BS[place, : len(ids)] = ids
        mask_BS[place, : len(ids)] = 1
    return {"input_ids": input_ids_BS, "attention_mask": mask_BS}


def plan_export(settings: Settings, model: PairModel, splits: PairSplits) -> ExportPlan:
    """The plan for an encoder: from token numbers to embeddings, judged by average precision.

    An example of the proof is a row: the outputs of its texts stand side by side, its answer is all of them.
    Scores take the place of average precision where labels are scores, and retrieval where there are none.
    """
    validation = splits.validation
    texts_per_row = 3 if splits.kind == "triplets" else 2
    examples = text_inputs(model, [text for row in texts_of(validation.select([0])) for text in row][:2])
    return ExportPlan(
        model=exported_module(model),
        inputs={name: torch.from_numpy(value) for name, value in examples.items()},
        output=OUTPUT,
        axes={"input_ids": TOKENS, "attention_mask": TOKENS, OUTPUT: {0: "batch"}},
        optimum_task="feature-extraction",
        rows=len(validation),
        batches=lambda rows, size: _batches(model, validation.select(rows), size),
        calibration=lambda examples: iter(()),
        answers=lambda outputs, rows: outputs.reshape(-1, texts_per_row, outputs.shape[-1]),
        decide=lambda answers_NKD, rows: _decide(model, answers_NKD),
        metric=METRICS[splits.kind],
        measure=lambda answers_NKD, rows: _measure(
            model, validation.select(list(rows)), answers_NKD, METRICS[splits.kind]
        ),
        facts=_facts(model, splits),
        further={"pair": _plan_pair(model, splits)} if splits.kind in ("labels", "scores") else {},
    )


def _plan_pair(model: PairModel, splits: PairSplits) -> ExportPlan:
    """The plan for the graph from the tokens of two texts to their score."""
    validation = splits.validation
    examples = next(_pair_batches(model, validation.select(range(min(2, len(validation)))), 2))
    labels_N = labels_of(validation)
    head = None if model.head is None else model.head.to("cpu").eval()

    def measure_scores(scores_N: np.ndarray, rows: Sequence[int]) -> float:
        chosen_N = labels_N[list(rows)]
        if splits.kind == "scores":
            return _number(compute_scored_pairs(scores_N, chosen_N)["spearman"])
        threshold = model.threshold or 0.0
        return _number(compute_labelled_pairs(scores_N, chosen_N, threshold=threshold)["average_precision"])

    return ExportPlan(
        model=PairScorer(exported_module(model), head).eval(),
        inputs={name: torch.from_numpy(value) for name, value in examples.items()},
        output=SCORE,
        axes={name: {0: "batch", 1: f"tokens_{name[-1]}"} for name in examples} | {SCORE: {0: "batch"}},
        optimum_task="feature-extraction",
        rows=len(validation),
        batches=lambda rows, size: _pair_batches(model, validation.select(rows), size),
        calibration=lambda examples: iter(()),
        answers=lambda scores_N, rows: scores_N,
        decide=lambda scores_N, rows: _decide_scores(model, scores_N),
        metric=METRICS[splits.kind],
        measure=measure_scores,
        facts=_facts(model, splits),
    )


def _batches(model: PairModel, rows: datasets.Dataset, size: int) -> Iterator[Arrays]:
    for start in range(0, len(rows), size):
        batch = rows.select(range(start, min(start + size, len(rows))))
        yield text_inputs(model, [text for texts in texts_of(batch) for text in texts])


def _pair_batches(model: PairModel, rows: datasets.Dataset, size: int) -> Iterator[Arrays]:
    for start in range(0, len(rows), size):
        batch = rows.select(range(start, min(start + size, len(rows))))
        sides = zip(*(texts[:2] for texts in texts_of(batch)), strict=True)
        yield {
            f"{name}_{side}": value
            for side, texts in enumerate(sides, start=1)
            for name, value in text_inputs(model, texts).items()
        }


def _decide(model: PairModel, answers_NKD: np.ndarray) -> Decisions:
    """Whether each pair is called true; without a threshold, nothing is decided."""
    count = len(answers_NKD)
    places_N = np.arange(count)
    embeddings_TD = answers_NKD[:, :2].swapaxes(0, 1).reshape(2 * count, -1)
    scores_N = scores_of_pairs(model, embeddings_TD, places_N, places_N + count)
    return _decide_scores(model, scores_N)


def _decide_scores(model: PairModel, scores_N: np.ndarray) -> Decisions:
    if model.threshold is None:
        return Decisions(np.zeros(len(scores_N)), np.zeros(len(scores_N)))
    return Decisions(scores_N >= model.threshold, np.abs(scores_N - model.threshold))


def _measure(model: PairModel, rows: datasets.Dataset, answers_NKD: np.ndarray, metric: str) -> float:
    pairs = pairs_of_texts(rows)
    embeddings_TD = np.zeros((len(pairs.texts), answers_NKD.shape[-1]), answers_NKD.dtype)
    embeddings_TD[pairs.numbers_NK] = answers_NKD
    return _number(measure(model, pairs, embeddings_TD, fit=False).metrics[metric])


def _number(found: float | None) -> float:
    """The figure; 0 where the rows have one label only, and so none."""
    return float(found) if found is not None and np.isfinite(found) else 0.0


def _facts(model: PairModel, splits: PairSplits) -> dict[str, Any]:
    encoder = model.encoder
    return {
        "score": "cosine" if model.head is None else "difference-head",
        "threshold": model.threshold,
        "max_length": encoder.max_seq_length,
        "prompt": encoder.prompts.get(encoder.default_prompt_name or "") or None,
        "data_fingerprint": splits.facts.get("fingerprint"),
    }
