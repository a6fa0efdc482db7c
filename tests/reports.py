"""Answers and records made on the spot for tests of pages."""

from html.parser import HTMLParser

import numpy as np
from PIL import Image
from transformers import PretrainedConfig

from hf_tasks.contract.answers import ClassificationAnswers
from hf_tasks.errors import DataError
from hf_tasks.report.record import RunRecord
from hf_tasks.tasks.image_classification.measure import describe_answers
from hf_tasks.tasks.image_classification.predictions import decode_logits

NAMES = ("ant", "bee", "cat")
HISTORY = (
    {"epoch": 0.5, "step": 5, "loss": 1.2, "learning_rate": 1e-3},
    {"epoch": 1.0, "step": 10, "eval_loss": 0.9, "eval_accuracy": 0.7, "eval_runtime": 3.0},
    {"epoch": 1.5, "step": 15, "loss": 0.7, "learning_rate": 5e-4},
    {"epoch": 2.0, "step": 20, "eval_loss": 0.6, "eval_accuracy": 0.8, "eval_runtime": 3.0},
)


class Elements(HTMLParser):
    """What a browser would make of a page: names of elements with attributes, and all text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def build_answers(
    *, class_names=NAMES, count=60, is_multilabel=False, gone=frozenset(), seed=0, with_logits=False
):
    """A model that is right about two times in three; pictures of 24 pixels, some of them `gone`."""
    generator = np.random.default_rng(seed)
    classes = len(class_names)
    if is_multilabel:
        labels = (generator.random((count, classes)) < 0.4).astype(np.float32)
        signal = 2 * labels - 1
    else:
        labels = generator.integers(0, classes, count)
        signal = 2.0 * (labels[:, None] == np.arange(classes))
    logits = (signal + generator.normal(0, 1, (count, classes))).astype(np.float32)
    config = _config(class_names, is_multilabel=is_multilabel)
    found, decisions = decode_logits(logits, config)
    truth = found * labels + (1 - found) * (1 - labels) if is_multilabel else found[range(count), labels]

    def load_picture(number):
        if number in gone:
            raise DataError(f"picture {number}: there is no such file")
        return Image.new("RGB", (24, 24), (number * 4 % 256, 100, 50))

    answers = ClassificationAnswers(
        class_names=tuple(class_names),
        labels=labels,
        probabilities_NC=found,
        decisions=decisions,
        losses_N=-np.log(truth.reshape(count, -1)).mean(axis=1),
        paths=[f"validation/{number}.png" for number in range(count)],
        load_picture=load_picture,
    )
    return (answers, logits) if with_logits else answers


def build_record(answers, **changes):
    """What a run with these answers would have left behind."""
    probabilities = answers.probabilities_NC
    logits = np.log(probabilities) - (np.log1p(-probabilities) if answers.is_multilabel else 0)
    config = _config(answers.class_names, is_multilabel=answers.is_multilabel)
    metrics = {
        "loss": float(answers.losses_N.mean()),
        **describe_answers(answers, logits, config),
        "training": {"epochs": 2.0, "steps": 20, "best_step": 20, "seconds": 12.5},
    }
    counts = dict.fromkeys(answers.class_names, 20)
    values = {
        "name": "insects",
        "task": "image-classification",
        "metrics": metrics,
        "data": {
            "classes": list(answers.class_names),
            "train": {"rows": 240, "rows_per_class": counts},
            "validation": {"rows": len(answers.losses_N), "rows_per_class": counts},
            "sources": {"train": {"table": "train.csv", "images": None}},
            "skipped": [],
            "fingerprint": "0123456789abcdef0123",
        },
        "environment": {"python": "3.11", "torch": "2.14"},
        "recipe": "task: image-classification\n",
        "history": HISTORY,
    }
    return RunRecord(**{**values, **changes})


def _config(class_names, *, is_multilabel):
    kind = "multi_label_classification" if is_multilabel else "single_label_classification"
    return PretrainedConfig(id2label=dict(enumerate(class_names)), problem_type=kind)
