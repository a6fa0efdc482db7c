"""Classification of text pairs as a value: the functions that a run calls, in the order it calls them."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments

from hf_tasks.contract.answers import ExampleColumns, PairAnswers, Predictions
from hf_tasks.contract.task import Indexing, Task
from hf_tasks.data.sources import HubSource, TableSource, TextTable
from hf_tasks.metrics.bootstrap import interval_ends
from hf_tasks.tasks.siamese.adapters import add_adapters
from hf_tasks.tasks.siamese.analytics import analytics_tables
from hf_tasks.tasks.siamese.compare import compare_tables
from hf_tasks.tasks.siamese.data import (
    TEXT_COLUMNS,
    PairSplits,
    default_loss,
    distinct_texts,
    kind_of,
    prepare_rows,
    prepare_splits,
)
from hf_tasks.tasks.siamese.embeddings import TEXT_SUFFIXES, TextEmbedder, load_cutoff
from hf_tasks.tasks.siamese.examine import examine
from hf_tasks.tasks.siamese.export import exported_module, plan_export
from hf_tasks.tasks.siamese.losses import build_loss
from hf_tasks.tasks.siamese.measure import measure
from hf_tasks.tasks.siamese.model import (
    PairModel,
    build_head,
    build_static,
    count_cut_texts,
    load_pair_model,
    open_encoder,
)
from hf_tasks.tasks.siamese.predictions import TABLE_SUFFIXES, PairPredictor, decisions
from hf_tasks.tasks.siamese.settings import CoSent, Loss, MultipleNegatives, Settings
from hf_tasks.tasks.siamese.texts import pairs_of_texts
from hf_tasks.tasks.siamese.trainer import SiameseTrainer

SPEED = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "eval_model_preparation_time")

logger = logging.getLogger(__name__)


def training_defaults(settings: Settings) -> Mapping[str, Any]:
    """TrainingArguments that suit fine-tuning of encoders; static embeddings want far larger steps."""
    is_static = settings.model.static is not None
    return {
        "num_train_epochs": 10 if is_static else 3,
        "per_device_train_batch_size": 128 if is_static else 32,
        "per_device_eval_batch_size": 256 if is_static else 64,
        "learning_rate": 0.02 if is_static else 2e-5,
        "warmup_steps": 0,
        "lr_scheduler_type": "cosine" if is_static else "linear",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "average_precision" if "label" in settings.data.columns.named() else "mrr",
        "greater_is_better": True,
        "logging_steps": 50,
        "report_to": "none",
        "remove_unused_columns": False,
    }


def build_model(settings: Settings, opened: SentenceTransformer | None, splits: PairSplits) -> PairModel:
    """The encoder, with a head where the loss has one; notes how many texts it has to cut."""
    if opened is None:
        assert settings.model.static is not None
        assert splits.train is not None
        texts = sorted(distinct_texts(splits.train))
        opened = build_static(settings.model.static, texts, max_length=settings.model.max_length)
    # The tokenizer is known only now.
    cut = {
        name: count_cut_texts(opened, distinct_texts(rows))
        for name, rows in (("train", splits.train), ("validation", splits.validation))
        if rows is not None
    }
    splits.facts["texts_cut"] = cut
    logger.info("model.max_length: texts longer than the model reads, which are cut: %s", cut)
    has_head = _loss(settings, splits).name == "difference-head"
    head = build_head(opened, name=settings.model.name) if has_head else None
    lora = settings.model.lora
    adapters = None if lora is None else add_adapters(opened, lora)
    return PairModel(opened, head, columns=settings.data.columns.named(), adapters=adapters)


def rows_for(
    settings: Settings, source: TableSource | TextTable | HubSource | None, model: PairModel
) -> PairSplits:
    """Rows to measure a saved model on; the recipe's validation where no source is given."""
    chosen = source or settings.data.validation
    if isinstance(chosen, float):
        return replace(prepare_splits(settings), train=None)
    skips = source is None and settings.on_bad_example == "skip"
    rows = prepare_rows(chosen, settings.data.columns, skipped=[] if skips else None)
    return PairSplits(None, rows, kind_of(rows))


def build_trainer(
    settings: Settings,
    model: PairModel,
    splits: PairSplits,
    arguments: SentenceTransformerTrainingArguments,
    trust_remote_code: bool,
) -> SiameseTrainer:
    """The trainer with the loss of the recipe."""
    if arguments.metric_for_best_model == "average_precision" and splits.kind == "scores":
        # Labels turned out to be scores, which have no average precision.
        arguments.metric_for_best_model = "spearman"
    loss = _loss(settings, splits)
    return SiameseTrainer(
        model,
        arguments,
        train_dataset=splits.train,
        eval_dataset=splits.validation,
        loss=build_loss(loss, model) if splits.train is not None else None,
        distinct_batches=loss.name == "multiple-negatives",
        analytics=settings.analytics,
    )


def compute_predictions(trainer: SiameseTrainer, splits: PairSplits) -> Predictions:
    """Metrics of the validation rows with intervals, and a table with texts, label, score and decision."""
    output = trainer.predict(splits.validation, metric_key_prefix="eval")
    pairs = pairs_of_texts(splits.validation)
    measured = measure(trainer.pair_model, pairs, output.predictions, fit=trainer.fits_threshold)
    metrics = {
        **{name.removeprefix("eval_"): value for name, value in output.metrics.items() if name not in SPEED},
        **measured.metrics,
        "intervals": interval_ends(measured.draw_intervals()),
    }
    texts = {name: splits.validation[name][:] for name in TEXT_COLUMNS if name in splits.validation.features}
    labels = {} if pairs.labels_N is None else {"label": pairs.labels_N}
    predicted = decisions(measured.scores_N, measured.threshold)
    table = pa.table(
        {**texts, **labels, "score": measured.scores_N, "predicted": pa.array(predicted, pa.int64())}
    )
    further = {}
    if trainer.analytics is not None and trainer.is_world_process_zero():
        further = analytics_tables(trainer.pair_model, pairs.texts, output.predictions, trainer.analytics)
    answers = PairAnswers(
        texts=pairs.texts,
        numbers_NK=pairs.numbers_NK,
        embeddings_TD=output.predictions,
        scores_N=measured.scores_N,
        labels_N=pairs.labels_N,
        threshold=measured.threshold,
        clusters=further.get("clusters"),
    )
    return Predictions(metrics, table, answers, further_tables=further)


def _loss(settings: Settings, splits: PairSplits) -> Loss:
    if settings.loss is not None:
        return settings.loss
    return CoSent() if default_loss(splits.kind) == "cosent" else MultipleNegatives()


TASK = Task(
    name="siamese",
    arguments_class=SentenceTransformerTrainingArguments,
    file_suffixes=TABLE_SUFFIXES,
    training_defaults=training_defaults,
    shown_metrics=("average_precision", "f1", "accuracy", "spearman", "mrr", "recall_at_10"),
    open_weights=lambda settings: open_encoder(settings.model),
    prepare=prepare_splits,
    prepare_rows=rows_for,
    build_model=build_model,
    load_model=load_pair_model,
    build_trainer=build_trainer,
    compute_predictions=compute_predictions,
    examine=examine,
    load_predictor=PairPredictor,
    compare_tables=compare_tables,
    example_columns=ExampleColumns(("text_1", "text_2"), "label", "predicted"),
    plan_export=plan_export,
    exported_module=exported_module,
    indexing=Indexing(
        entry="text", file_suffixes=TEXT_SUFFIXES, load_embedder=TextEmbedder, load_cutoff=load_cutoff
    ),
    examples_per_file="many",
)
