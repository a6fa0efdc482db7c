"""What the page of a classifier picks out: mistakes, suspects, confusions, its verdict; counted by hand."""

import re

import numpy as np
import pytest
from PIL import Image
from reports import build_answers, build_record

from hf_tasks.contract.answers import ClassificationAnswers
from hf_tasks.report.captions import caption, confidence, wrong_examples
from hf_tasks.report.certainty import certainty_section, curve_section
from hf_tasks.report.classification import class_section, mistake_section
from hf_tasks.report.confusion import MOST_CLASSES, draw_label_outcomes, draw_matrix, draw_mix_ups
from hf_tasks.report.pictures import PictureBook
from hf_tasks.report.suspects import suspected_label_errors
from hf_tasks.report.verdict import classification_verdict

NBSP = "\N{NO-BREAK SPACE}"


def _answers(probabilities, labels, *, losses=None, decisions=None):
    probabilities, labels = np.array(probabilities, float), np.array(labels)
    if decisions is None:
        decisions = (probabilities >= 0.5).astype(int) if labels.ndim == 2 else probabilities.argmax(1)
    if losses is None and labels.ndim == 1:
        losses = -np.log(probabilities[np.arange(len(labels)), labels])
    return ClassificationAnswers(
        class_names=("ant", "bee", "cat")[: probabilities.shape[1]],
        labels=labels,
        probabilities_NC=probabilities,
        decisions=np.array(decisions),
        losses_N=np.zeros(len(labels)) if losses is None else np.array(losses, float),
        paths=[f"{number}.png" for number in range(len(labels))],
        load_picture=lambda number: Image.new("RGB", (8, 8)),
    )


def _book(answers):
    return PictureBook(
        answers.load_picture, answers.paths.__getitem__, lambda number: caption(answers, number)
    )


def _opened(html):
    """Numbers of the pictures that each button opens, by its title."""
    found = re.findall(r'data-title="([^"]*)" data-examples="([\d ]*)"', html)
    return {title: [int(number) for number in numbers.split()] for title, numbers in found}


FOUR = [[0.8, 0.2], [0.1, 0.9], [0.3, 0.7], [0.6, 0.4]]
FOUR_LABELS = [0, 0, 0, 1]  # right, wrong at 0.9, wrong at 0.7, wrong at 0.6


def test_the_surest_mistakes_come_first():
    answers = _answers(FOUR, FOUR_LABELS)

    section = mistake_section(answers, _book(answers), count=2)

    galleries = re.findall(r'class="gallery" data-examples="([\d ]+)"', section.body)
    assert galleries[0] == "1 2"
    assert galleries[1] == "1 2"  # losses -log 0.1 and -log 0.3
    assert section.lead.startswith("3 of 4")


def test_a_run_without_mistakes_still_shows_its_highest_losses():
    answers = _answers([[0.8, 0.2], [0.6, 0.4]], [0, 0])

    section = mistake_section(answers, _book(answers), count=5)

    assert "Most confidently wrong" not in section.body
    assert 'data-examples="1 0"' in section.body


def test_several_labels_are_as_sure_as_their_worst_is_wrong():
    answers = _answers([[0.9, 0.2], [0.4, 0.7]], [[1, 0], [1, 1]])

    assert wrong_examples(answers).tolist() == [False, True]
    assert confidence(answers).tolist() == pytest.approx([0.2, 0.6])


def test_a_caption_tells_found_missed_and_invented_labels_apart():
    answers = _answers([[0.9, 0.2, 0.8], [0.1, 0.2, 0.3]], [[1, 1, 0], [0, 0, 0]])

    chips = [(chip.text, chip.kind) for chip in caption(answers, 0).chips]

    assert chips == [("bee", "missed"), ("cat", "bad"), ("ant", "good")]
    assert [chip.text for chip in caption(answers, 1).chips] == ["no label"]


def test_a_wrong_label_is_suspected():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 300)
    probabilities = np.full((300, 3), 0.02)
    probabilities[np.arange(300), labels] = 0.96
    given = labels.copy()
    given[[7, 70]] = (labels[[7, 70]] + 1) % 3  # the model is right, the label is not
    probabilities[11] = [0.34, 0.33, 0.33]  # unsure, so no accusation
    given[11] = 2

    suspects = suspected_label_errors(_answers(probabilities, given))

    assert sorted(suspects.tolist()) == [7, 70]


def test_a_missing_and_a_superfluous_label_are_suspected():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, (200, 2)).astype(np.float32)
    probabilities = np.where(labels == 1, 0.95, 0.05)
    probabilities[[3, 5]] = np.where(labels[[3, 5]] == 1, 0.97, 0.03)
    given = labels.copy()
    given[3, 0] = 1 - given[3, 0]
    given[5, 1] = 1 - given[5, 1]
    losses = -np.log(np.where(given == 1, probabilities, 1 - probabilities)).mean(axis=1)

    suspects = suspected_label_errors(_answers(probabilities, given, losses=losses))

    assert sorted(suspects.tolist()) == [3, 5]


def test_a_cell_opens_the_pictures_that_belong_in_it():
    answers = _answers(FOUR, FOUR_LABELS)

    opened = _opened(draw_matrix(answers, _book(answers)))

    assert opened == {"ant, rightly: 1": [0], "ant taken for bee: 2": [1, 2], "bee taken for ant: 1": [3]}


def test_the_numbers_of_the_matrix_are_the_confusion_matrix():
    answers = build_answers(count=200)

    html = draw_matrix(answers, _book(answers))

    rows = re.findall(r'<th scope="row".*?</tr>', html, flags=re.DOTALL)
    counts = [
        [int(text or 0) for text in re.findall(r"<td[^>]*>(?:<button[^>]*>)?(\d*)", row)] for row in rows
    ]
    record = build_record(answers)
    assert counts == record.metrics["confusion_matrix"]


def test_of_many_classes_the_matrix_has_those_that_are_mixed_up_most():
    classes = MOST_CLASSES + 15
    labels = np.repeat(np.arange(classes), 3)
    decisions = labels.copy()
    decisions[labels >= 15] = 15 + (decisions[labels >= 15] - 14) % MOST_CLASSES
    names = tuple(f"class {number}" for number in range(classes))
    probabilities = np.eye(classes)[decisions]
    answers = ClassificationAnswers(
        names, labels, probabilities, decisions, np.ones(len(labels)), [""] * len(labels), _no_picture
    )

    html = draw_matrix(answers, _book(answers))

    shown = re.findall(r'<th scope="row" title="([^"]*)"', html)
    assert shown == list(names[15:])


def _no_picture(number):
    return Image.new("RGB", (4, 4))


def test_mix_ups_are_listed_by_how_often_they_happen():
    answers = _answers(FOUR, FOUR_LABELS)

    html = draw_mix_ups(answers, _book(answers))

    assert list(_opened(html)) == ["ant taken for bee: 2", "bee taken for ant: 1"]
    assert f"66.7{NBSP}%" in html  # two of three ants


def test_a_label_opens_what_was_missed_and_what_was_invented():
    answers = _answers([[0.9, 0.2], [0.4, 0.7], [0.8, 0.1]], [[1, 1], [1, 0], [0, 0]])

    opened = _opened(draw_label_outcomes(answers, _book(answers)))

    assert opened == {
        "ant: missed: 1": [1],
        "ant: false alarms: 1": [2],
        "ant: found: 1": [0],
        "bee: missed: 1": [0],
        "bee: false alarms: 1": [1],
    }


def test_the_table_of_classes_has_a_row_a_class_with_its_interval():
    record = build_record(build_answers())

    section = class_section(record.metrics)

    low, high = record.metrics["intervals"]["f1"][0]
    assert section.body.count("<tr>") == 1 + 3
    assert f"{100 * low:.1f}".removesuffix(".0") in section.body
    assert f"{100 * high:.1f}".removesuffix(".0") in section.body


def test_certainty_tells_that_it_does_not_praise_itself():
    answers = build_answers()

    section = certainty_section(answers, build_record(answers).metrics)

    assert "each fifth of them was measured with what the other four gave" in section.body
    assert section.body.count('class="chart"') == 3


def test_curves_of_precision_are_for_several_labels_alone():
    one, several = build_answers(), build_answers(is_multilabel=True)

    assert curve_section(one, build_record(one).metrics).body == ""
    assert curve_section(several, build_record(several).metrics).body.count('class="chart"') == 3


def test_a_model_that_only_guesses_is_told_so():
    answers = _answers([[0.9, 0.1]] * 4, [0, 0, 0, 1])

    verdict = classification_verdict(build_record(answers), answers)

    assert verdict.headline == f"75{NBSP}% of 4 validation pictures right"
    assert any(note.level == "bad" and "always answering ant" in note.text for note in verdict.notes)


def test_a_loss_that_rises_again_is_told():
    answers = build_answers()
    history = [
        {"epoch": float(epoch), "eval_loss": loss} for epoch, loss in enumerate([1, 0.5, 0.9], start=1)
    ]

    verdict = classification_verdict(build_record(answers, history=history), answers)

    assert any("rises after epoch 2" in note.text for note in verdict.notes)


def test_an_export_that_answers_otherwise_is_told():
    answers = build_answers()
    exports = [{"format": "onnx", "passed": True}, {"format": "torchscript", "passed": False}]

    verdict = classification_verdict(build_record(answers, exports=exports), answers)

    assert any(note.level == "bad" and note.text.endswith("torchscript.") for note in verdict.notes)
