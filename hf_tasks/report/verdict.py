"""What a page says first of a classifier: one sentence, and the few findings that call for something."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hf_tasks.contract.answers import ClassificationAnswers
from hf_tasks.report.captions import confidence, wrong_examples
from hf_tasks.report.page import Note, Verdict, percent
from hf_tasks.report.record import RunRecord
from hf_tasks.report.suspects import suspected_label_errors

GOOD_CALIBRATION, POOR_CALIBRATION = 0.03, 0.06
RISING_LOSS = 1.1
WIDE_INTERVAL = 0.1
FEWEST = 30


def classification_verdict(record: RunRecord, answers: ClassificationAnswers) -> Verdict:
    """How good it is, and what is good, what to watch and what is bad about it."""
    count = len(answers.losses_N)
    right = 1 - wrong_examples(answers).mean()
    what = "have every label right" if answers.is_multilabel else "right"
    headline = f"{percent(right)} of {count:,} validation pictures {what}"
    findings = (
        _against_guessing(answers),
        _weakest_class(record.metrics),
        _certainty(answers, record.metrics),
        learning_notes(record.history),
        _suspects(answers),
        too_few(count, what="pictures"),
        few_examples(record.metrics, "accuracy", what="accuracy"),
        _absent_classes(record.metrics),
        export_notes(record.exports),
    )
    return Verdict(headline, [note for notes in findings for note in notes])


def _against_guessing(answers: ClassificationAnswers) -> Iterator[Note]:
    if answers.is_multilabel:
        return
    counts_C = np.bincount(answers.labels, minlength=len(answers.class_names))
    guess, right = counts_C.max() / counts_C.sum(), 1 - wrong_examples(answers).mean()
    name = answers.class_names[int(counts_C.argmax())]
    if right <= guess:
        yield Note("bad", f"No better than always answering {name}, which is right for {percent(guess)}.")
    else:
        yield Note("good", f"Far from guessing: always {name} would be right for {percent(guess)}.")


def _weakest_class(metrics: Mapping[str, Any]) -> Iterator[Note]:
    occurring = {name: row for name, row in metrics.get("per_class", {}).items() if row["support"]}
    if not occurring:
        return
    name, row = min(occurring.items(), key=lambda item: item[1]["f1"])
    level = "good" if row["f1"] >= 0.9 else "watch" if row["f1"] >= 0.5 else "bad"
    yield Note(level, f"Weakest class: {name}, F1 {percent(row['f1'])} of {row['support']:,} examples.")


def _certainty(answers: ClassificationAnswers, metrics: Mapping[str, Any]) -> Iterator[Note]:
    calibration = metrics.get("calibration")
    if not calibration:
        return
    ece = calibration["ece"]
    if ece <= GOOD_CALIBRATION:
        yield Note("good", f"Probabilities can be believed: they are off by {percent(ece)} on average.")
        return
    level = "watch" if ece <= POOR_CALIBRATION else "bad"
    if answers.is_multilabel:
        yield Note(level, f"Probabilities are off by {percent(ece)} on average.")
        return
    sure, right = confidence(answers).mean(), 1 - wrong_examples(answers).mean()
    way = "too sure of itself" if sure > right else "less sure than it could be"
    yield Note(level, f"The model is {way}: it claims {percent(sure)}, and {percent(right)} is right.")


def learning_notes(history: Sequence[Mapping[str, Any]]) -> Iterator[Note]:
    """Whether the validation loss rises again, or still falls, of any task that logs one."""
    losses = [(entry["epoch"], entry["eval_loss"]) for entry in history if "eval_loss" in entry]
    if len(losses) < 2:
        return
    best_epoch, best = min(losses, key=lambda pair: pair[1])
    if losses[-1][1] > RISING_LOSS * best:
        yield Note("watch", f"Validation loss rises after epoch {best_epoch:g}: it starts learning by heart.")
    elif losses[-1][1] == best and losses[-2][1] > RISING_LOSS * best:
        yield Note("watch", "Validation loss still falls at the end: more epochs would probably help.")


def _suspects(answers: ClassificationAnswers) -> Iterator[Note]:
    if count := len(suspected_label_errors(answers)):
        yield Note(
            "watch", f"{count:,} {'labels look' if count > 1 else 'label looks'} wrong: see Suspected labels."
        )


def few_examples(metrics: Mapping[str, Any], name: str, *, what: str) -> Iterator[Note]:
    """Whether the interval of a share, which `what` says in words, is too wide to go by it; of any task."""
    interval = metrics.get("intervals", {}).get(name)
    if interval and interval[1] - interval[0] > WIDE_INTERVAL:
        between = f"{percent(interval[0])} to {percent(interval[1])}"
        yield Note("watch", f"Few examples: {what} may be anything from {between}.")


def too_few(count: int, *, what: str) -> Iterator[Note]:
    """Whether even intervals say little, as all draws from a few right answers are right; of any task."""
    if count < FEWEST:
        yield Note("watch", f"Measured on {count} {what} only: too few to go by.")


def _absent_classes(metrics: Mapping[str, Any]) -> Iterator[Note]:
    absent = [name for name, row in metrics.get("per_class", {}).items() if not row["support"]]
    if absent:
        shown = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        yield Note("watch", f"Not measured, as validation has none of them: {shown}.")


def export_notes(exports: Sequence[Mapping[str, Any]]) -> Iterator[Note]:
    """Whether the exported files answer as the model does."""
    failed = [str(entry.get("format")) for entry in exports if entry.get("passed") is False]
    if failed:
        yield Note("bad", f"Exports that do not answer as the model does: {', '.join(failed)}.")
    elif exports:
        yield Note("good", f"{len(exports)} exports answer as the model does.")
