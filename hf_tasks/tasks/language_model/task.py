"""Language modelling as a value: the functions that a run calls, in the order it calls them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from math import ceil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from transformers import TrainingArguments

from hf_tasks.contract.answers import ExampleColumns, LanguageAnswers, Predictions
from hf_tasks.contract.task import Task
from hf_tasks.data.documents import load_documents
from hf_tasks.data.portions import pieces_of
from hf_tasks.data.sources import HubSource, TableSource, TextFile, TextTable
from hf_tasks.metrics.bootstrap import interval_ends
from hf_tasks.metrics.language import language_intervals
from hf_tasks.tasks.language_model.blocks import CausalBlocks, MaskedBlocks, document_numbers, pack
from hf_tasks.tasks.language_model.compare import compare_tables
from hf_tasks.tasks.language_model.data import DocumentSplits, documents_of, prepare_splits
from hf_tasks.tasks.language_model.examine import examine
from hf_tasks.tasks.language_model.export import exported_module, plan_export, refused_formats
from hf_tasks.tasks.language_model.generation import TEXT_SUFFIXES, TextPredictor, sample_texts
from hf_tasks.tasks.language_model.model import (
    LanguageModel,
    build_from_scratch,
    keeps_boundaries,
    load_language_model,
    open_model,
    set_generation,
    with_adapters,
)
from hf_tasks.tasks.language_model.settings import Settings
from hf_tasks.tasks.language_model.trainer import Blocks, LanguageModelTrainer

# Learning a tokenizer keeps every word in memory, and more text than this hardly changes the tokens.
TOKENIZER_BYTES = 100_000_000


def training_defaults(settings: Settings) -> Mapping[str, Any]:
    """TrainingArguments that suit fine-tuning; a model from nothing wants larger steps."""
    is_new = settings.model.from_scratch is not None
    return {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 32 if is_new else 8,
        "per_device_eval_batch_size": 32 if is_new else 8,
        "learning_rate": 2e-3 if is_new else 5e-5,
        "weight_decay": 0.1 if is_new else 0.01,
        "adam_beta2": 0.95 if is_new else 0.999,
        "warmup_steps": 50,
        "lr_scheduler_type": "cosine",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": False,
        "logging_steps": 50,
        "report_to": "none",
        "remove_unused_columns": False,
    }


def build_model(settings: Settings, opened: LanguageModel | None, splits: DocumentSplits) -> LanguageModel:
    """The model to train, which notes whether it can keep documents apart."""
    if opened is None:
        assert settings.model.from_scratch is not None
        assert splits.train is not None
        opened = build_from_scratch(
            settings.model.from_scratch,
            _tokenizer_documents(splits.train),
            is_causal=settings.objective == "causal",
        )
    if opened.is_causal:
        set_generation(opened, settings.generation)
    splits.facts["documents_kept_apart"] = keeps_boundaries(opened)
    return opened if settings.model.lora is None else with_adapters(opened, settings.model.lora)


def rows_for(
    settings: Settings, source: TextFile | TextTable | TableSource | HubSource | None, model: LanguageModel
) -> DocumentSplits:
    """Documents to measure a saved model on; the recipe's validation where no source is given.

    A table that ends in .txt is a text file, and holds documents as that of the recipe does.
    """
    chosen = source or settings.data.validation
    if isinstance(source, TableSource) and Path(source.table).suffix.lower() in TEXT_SUFFIXES:
        train = settings.data.train
        documents = train.documents if isinstance(train, TextFile) else "lines"
        chosen = TextFile(text=source.table, encoding=source.encoding, documents=documents)
    if isinstance(chosen, float):
        return replace(prepare_splits(settings), train=None)
    skips = source is None and settings.on_bad_example == "skip"
    documents = load_documents(chosen, column=settings.data.columns.text, skipped=[] if skips else None)
    return DocumentSplits(None, documents)


def build_trainer(
    settings: Settings,
    model: LanguageModel,
    splits: DocumentSplits,
    arguments: TrainingArguments,
    trust_remote_code: bool,
) -> LanguageModelTrainer:
    """The trainer with the documents packed into blocks."""
    with arguments.main_process_first(local=False):
        validation = _blocks(settings, model, splits.validation, seed=arguments.seed, keep_rest=True)
        train = None
        if splits.train is not None:
            train = _blocks(settings, model, splits.train, seed=arguments.seed, keep_rest=False)
    samples = settings.generation.samples
    return LanguageModelTrainer(
        model, arguments, train_dataset=train, eval_dataset=validation, samples=samples
    )


def compute_predictions(trainer: LanguageModelTrainer, splits: DocumentSplits) -> Predictions:
    """Metrics of the held-out blocks with intervals, a table with the loss of each, and samples of text."""
    blocks, loaded = trainer.eval_dataset, trainer.language_model
    output = trainer.predict(blocks, metric_key_prefix="eval")
    nats_N, tokens_N = output.predictions.astype(np.float64), output.label_ids
    losses_N = nats_N / np.maximum(tokens_N, 1)
    numbers_N = np.arange(len(blocks))
    texts = [loaded.tokenizer.decode(blocks.original(block).tolist()) for block in numbers_N.tolist()]
    documents_N = document_numbers(blocks)
    columns = {"block": numbers_N, "document": documents_N, "text": texts, "tokens": tokens_N}
    table = pa.table({**columns, "loss": losses_N})
    samples = sample_texts(loaded, list(islice(documents_of(splits.validation), trainer.samples)))
    further = {}
    if samples:
        prompts, continuations = zip(*samples, strict=True)
        further["samples"] = pa.table({"prompt": prompts, "continuation": continuations})
    bytes_N = _bytes_of(blocks, texts, loaded)
    intervals = language_intervals(nats_N, tokens_N, bytes_N=bytes_N, documents_N=documents_N)
    metrics = {**trainer.figures(nats_N, tokens_N, blocks), "intervals": interval_ends(intervals)}
    return Predictions(metrics, table, LanguageAnswers(losses_N, texts, samples), further_tables=further)


def _bytes_of(blocks: Blocks, texts: Sequence[str], loaded: LanguageModel) -> np.ndarray | None:
    """UTF-8 bytes of each block's text, (N,); None of a masked model, which predicts some tokens alone.

    Tokenizers do not always give a text back as it was, so its true length is shared out by what they give.
    """
    if not isinstance(blocks, CausalBlocks):
        return None
    boundary = loaded.tokenizer.decode([loaded.boundary])
    bytes_N = np.array([len(text.replace(boundary, "\n").encode()) for text in texts], np.float64)
    return bytes_N * (blocks.text_bytes / bytes_N.sum())


def _tokenizer_documents(documents: datasets.Dataset) -> Iterator[str]:
    """Documents to learn tokens from: all, or of much text one in so many, evenly."""
    text_bytes = documents.data.nbytes * len(documents) / documents.data.num_rows
    chosen = islice(documents_of(documents), 0, None, ceil(text_bytes / TOKENIZER_BYTES))
    return chain.from_iterable(map(pieces_of, chosen))


def _blocks(
    settings: Settings, model: LanguageModel, documents: datasets.Dataset, *, seed: int, keep_rest: bool
) -> Blocks:
    packed = pack(documents, model)
    if model.is_causal:
        return CausalBlocks(packed, model, keep_rest=keep_rest, positions=keeps_boundaries(model))
    return MaskedBlocks(packed, model, keep_rest=keep_rest, probability=settings.mask_probability, seed=seed)


TASK = Task(
    name="language-model",
    arguments_class=TrainingArguments,
    file_suffixes=TEXT_SUFFIXES,
    training_defaults=training_defaults,
    shown_metrics=("loss", "perplexity", "bits_per_byte"),
    open_weights=lambda settings: open_model(settings.model, is_causal=settings.objective == "causal"),
    prepare=prepare_splits,
    prepare_rows=rows_for,
    build_model=build_model,
    load_model=load_language_model,
    build_trainer=build_trainer,
    compute_predictions=compute_predictions,
    examine=examine,
    load_predictor=TextPredictor,
    compare_tables=compare_tables,
    example_columns=ExampleColumns(("block", "text"), None, "loss"),
    plan_export=plan_export,
    refused_formats=refused_formats,
    exported_module=exported_module,
    examples_per_file="many",
)
