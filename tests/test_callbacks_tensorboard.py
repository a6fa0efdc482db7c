import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import precision_recall_curve

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from hf_tasks.callbacks.tensorboard import open_writer, write_answers, write_embeddings
from hf_tasks.contract.answers import ClassificationAnswers
from hf_tasks.metrics.classification import compute_multiclass, compute_multilabel

NAMES = ("rose", "$\\frac$", "<img src=x>", "роза\n2")


def answers_of(*, is_multilabel, examples=60):
    random = np.random.default_rng(0)
    if is_multilabel:
        probabilities_NC = random.random((examples, len(NAMES)))
        labels = (random.random(probabilities_NC.shape) < probabilities_NC).astype(np.float32)
        decisions = (probabilities_NC >= 0.5).astype(np.int64)
        metrics = compute_multilabel(probabilities_NC, labels, class_names=NAMES)
    else:
        probabilities_NC = random.dirichlet(np.ones(len(NAMES)), examples)
        labels = random.integers(0, len(NAMES), examples)
        decisions = probabilities_NC.argmax(axis=1)
        metrics = compute_multiclass(probabilities_NC, labels, class_names=NAMES)
    answers = ClassificationAnswers(
        NAMES,
        labels,
        probabilities_NC,
        decisions,
        losses_N=np.zeros(examples),
        paths=[f"{example}.png" for example in range(examples)],
        load_picture=lambda example: Image.new("RGB", (300, 40 + example), (example, 0, 0)),
    )
    return answers, metrics


def read_events(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    return events.Reload()


@pytest.mark.parametrize("is_multilabel", [False, True])
def test_pictures_and_curves_are_in_the_event_files(tmp_path, is_multilabel):
    answers, metrics = answers_of(is_multilabel=is_multilabel)

    with open_writer(tmp_path, resumed_step=None) as writer:
        write_answers(writer, answers, metrics, step=7, wrong_images=8)

    events = read_events(tmp_path)
    figures = {"wrong_pictures", "f1_per_class"} | (set() if is_multilabel else {"confusion_matrix"})
    assert set(events.Tags()["images"]) == figures
    for name in figures:
        [picture] = events.Images(name)
        assert picture.step == 7
        assert picture.encoded_image_string.startswith(b"\x89PNG")
        assert min(picture.width, picture.height) > 100
    assert len(events.Tags()["tensors"]) == len(NAMES)


def test_curves_have_the_precision_and_recall_of_scikit_learn(tmp_path):
    answers, metrics = answers_of(is_multilabel=True)

    with open_writer(tmp_path, resumed_step=None) as writer:
        write_answers(writer, answers, metrics, step=7, wrong_images=8)

    [event] = read_events(tmp_path).Tensors("precision_recall/rose")
    precision, recall = make_ndarray(event.tensor_proto)[4:]
    exact_precision, exact_recall, thresholds = precision_recall_curve(
        answers.labels[:, 0], answers.probabilities_NC[:, 0]
    )
    at_half = np.searchsorted(thresholds, 63 / 126)  # TensorBoard keeps 127 thresholds, the middle one 0.5
    assert precision[63] == pytest.approx(exact_precision[at_half], abs=1e-6)
    assert recall[63] == pytest.approx(exact_recall[at_half], abs=1e-6)


def test_a_flawless_model_has_no_wrong_pictures(tmp_path):
    answers, metrics = answers_of(is_multilabel=False)
    flawless = ClassificationAnswers(**{**vars(answers), "labels": answers.decisions})

    with open_writer(tmp_path, resumed_step=None) as writer:
        write_answers(writer, flawless, metrics, step=1, wrong_images=8)

    assert "wrong_pictures" not in read_events(tmp_path).Tags()["images"]


def test_steps_after_the_checkpoint_are_forgotten_when_training_resumes(tmp_path):
    for resumed_step, steps in ((None, range(1, 6)), (3, range(4, 7))):
        with open_writer(tmp_path, resumed_step=resumed_step) as writer:
            for step in steps:
                writer.add_scalar("train/loss", step, step)

    scalars = read_events(tmp_path).Scalars("train/loss")

    assert [scalar.step for scalar in scalars] == [1, 2, 3, 4, 5, 6]


def test_embeddings_are_written_with_a_line_a_text(tmp_path):
    embeddings_ND = np.arange(6, dtype=np.float32).reshape(3, 2)

    with open_writer(tmp_path, resumed_step=None) as writer:
        write_embeddings(writer, embeddings_ND, ["rose", "two\nlines", ""], step=4)

    [folder] = tmp_path.glob("00004*/*")
    assert np.loadtxt(folder / "tensors.tsv").tolist() == embeddings_ND.tolist()
    assert (folder / "metadata.tsv").read_text().splitlines() == ["rose", "two lines", "-"]
