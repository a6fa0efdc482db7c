"""Values and gradients beside torch's and timm's losses, and beside plain loops over numbers."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from timm.loss import AsymmetricLossMultiLabel
from torch.nn import functional

from hf_tasks.errors import RecipeError
from hf_tasks.tasks.image_classification.losses import (
    asymmetric,
    binary_cross_entropy,
    build_loss,
    cross_entropy,
    per_example_losses,
)
from hf_tasks.tasks.image_classification.settings import Asymmetric, BinaryCrossEntropy, CrossEntropy

NAMES = ["cat", "dog", "owl"]
LABELS = np.array([0, 0, 0, 1, 1, 2, 0, 0])
PRESENCE = np.array([[1, 0, 1], [0, 0, 1], [0, 1, 1], [0, 0, 1]] * 2, dtype="float32")


def _logits(scale=2.0):
    return (torch.randn(8, 3, generator=torch.Generator().manual_seed(0)) * scale).requires_grad_()


def _call(loss, logits, labels, count=None):
    return loss(SimpleNamespace(logits=logits), torch.as_tensor(labels), num_items_in_batch=count)


def _gradient(value, logits):
    return torch.autograd.grad(value, logits, retain_graph=True)[0]


LOSSES = {
    "cross-entropy": (CrossEntropy(label_smoothing=0.1, class_weights="balanced"), LABELS),
    "binary-cross-entropy": (BinaryCrossEntropy(positive_weights="balanced"), PRESENCE),
    "asymmetric": (Asymmetric(name="asymmetric"), PRESENCE),
}


@pytest.fixture(params=LOSSES)
def loss_and_labels(request):
    settings, labels = LOSSES[request.param]
    loss = build_loss(settings, class_names=NAMES, train_labels=labels, is_multilabel=labels.ndim == 2)
    return loss, labels


def test_plain_cross_entropy_is_that_of_torch():
    logits, labels = _logits(), torch.as_tensor(LABELS)

    loss = build_loss(None, class_names=NAMES, train_labels=LABELS, is_multilabel=False)

    value, expected = _call(loss, logits, labels), functional.cross_entropy(logits, labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(_gradient(value, logits), _gradient(expected, logits))


def test_weights_and_smoothing_are_those_of_a_plain_loop():
    logits, weights = _logits(), [0.5, 2.0, 4.0]

    losses = cross_entropy(
        logits, torch.as_tensor(LABELS), label_smoothing=0.3, class_weights_C=torch.tensor(weights)
    )

    for row, label, loss in zip(logits.tolist(), LABELS, losses.tolist(), strict=True):
        log_sum = math.log(sum(map(math.exp, row)))
        targets = [0.3 / 3 + 0.7 * (column == label) for column in range(3)]
        expected = sum(target * (log_sum - value) for target, value in zip(targets, row, strict=True))
        assert loss == pytest.approx(weights[label] * expected, rel=1e-5)


def test_binary_cross_entropy_is_that_of_torch():
    logits, labels, weights = _logits(), torch.as_tensor(PRESENCE), torch.tensor([1.0, 3.0, 0.5])

    value = binary_cross_entropy(logits, labels, positive_weights_C=weights).mean()

    expected = functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(_gradient(value, logits), _gradient(expected, logits))


@pytest.mark.parametrize(("negative", "positive", "clip"), [(4, 1, 0.05), (2, 0, 0.3), (0, 0, 0), (3, 3, 0)])
def test_asymmetric_loss_is_timms_mean(negative, positive, clip):
    logits, labels = _logits(), torch.as_tensor(PRESENCE)
    timms = AsymmetricLossMultiLabel(gamma_neg=negative, gamma_pos=positive, clip=clip, reduction="mean")

    value = asymmetric(logits, labels, gamma_negative=negative, gamma_positive=positive, clip=clip).mean()

    expected = timms(logits, labels)
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(_gradient(value, logits), _gradient(expected, logits), atol=1e-6, rtol=1e-4)


def test_an_asymmetric_error_keeps_its_gradient_where_timm_loses_it():
    logits = torch.tensor([[-30.0]], requires_grad=True)

    value = asymmetric(logits, torch.ones(1, 1), gamma_negative=4, gamma_positive=0, clip=0.05).mean()

    assert value.item() == pytest.approx(30.0)
    assert _gradient(value, logits).item() == pytest.approx(-1.0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_asymmetric_loss_of_extreme_logits_is_finite(gamma, clip):
    logits = torch.tensor([[-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4]], requires_grad=True)

    for label in (0.0, 1.0):
        labels = torch.full_like(logits, label)
        value = asymmetric(logits, labels, gamma_negative=gamma, gamma_positive=gamma, clip=clip).sum()

        assert value.isfinite()
        assert _gradient(value, logits).isfinite().all()


def test_extreme_logits_give_finite_losses_and_gradients(loss_and_labels):
    loss, labels = loss_and_labels
    logits = _logits(scale=1e4)

    value = _call(loss, logits, labels)

    assert value.isfinite()
    assert _gradient(value, logits).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_logits_are_computed_in_float32(loss_and_labels, dtype):
    loss, labels = loss_and_labels
    logits = _logits().detach().to(dtype)

    with torch.autocast("cpu", dtype=dtype):
        value = _call(loss, logits, labels)

    assert value.dtype == torch.float32
    torch.testing.assert_close(value, _call(loss, logits.float(), labels))


@pytest.mark.parametrize("cuts", [[8], [3, 3, 2], [1] * 8])
def test_accumulated_batches_add_up_to_the_mean_over_the_step(loss_and_labels, cuts):
    loss, labels = loss_and_labels
    logits = _logits()
    whole = _call(loss, logits, labels)
    parts = zip(logits.split(cuts), torch.as_tensor(labels).split(cuts), strict=True)

    total = sum(_call(loss, part, truth, count=torch.tensor(labels.size)) for part, truth in parts)

    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(_gradient(total, logits), _gradient(whole, logits))


def test_per_example_losses_average_to_the_loss_and_do_not_know_their_batch(loss_and_labels):
    loss, labels = loss_and_labels
    logits = _logits().detach().numpy()

    losses = per_example_losses(loss, logits, labels)

    one_by_one = [
        per_example_losses(loss, logits[row : row + 1], labels[row : row + 1]).item() for row in range(8)
    ]
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.mean(), _call(loss, torch.as_tensor(logits), labels))
    np.testing.assert_allclose(losses, one_by_one, rtol=1e-6)


def test_many_examples_are_computed_in_pieces_without_losing_any():
    logits, labels = torch.zeros(10_000, 2), torch.zeros(10_000, dtype=torch.int64)
    loss = build_loss(None, class_names=["x", "y"], train_labels=labels.numpy(), is_multilabel=False)

    losses = per_example_losses(loss, logits, labels)

    torch.testing.assert_close(losses, torch.full((10_000,), math.log(2)))


def test_balanced_class_weights_have_mean_one_over_the_training_rows():
    loss = build_loss(
        CrossEntropy(class_weights="balanced"), class_names=NAMES, train_labels=LABELS, is_multilabel=False
    )

    weights = loss.per_example.keywords["class_weights_C"]

    torch.testing.assert_close(weights, torch.tensor([8 / 15, 8 / 6, 8 / 3]))  # 5, 2 and 1 of 8 rows
    assert weights[torch.as_tensor(LABELS)].mean().item() == pytest.approx(1.0)


def test_balanced_positive_weights_are_absent_rows_over_present_rows():
    loss = build_loss(
        BinaryCrossEntropy(positive_weights="balanced"),
        class_names=NAMES,
        train_labels=PRESENCE,
        is_multilabel=True,
    )

    weights = loss.per_example.keywords["positive_weights_C"]

    torch.testing.assert_close(weights, torch.tensor([3.0, 3.0, 1.0]))  # owl is in every row: no ratio, so 1


def test_given_weights_go_by_name_and_the_others_are_one():
    settings = CrossEntropy(class_weights={"owl": 5.0})

    loss = build_loss(settings, class_names=NAMES, train_labels=LABELS, is_multilabel=False)

    assert loss.per_example.keywords["class_weights_C"].tolist() == [1.0, 1.0, 5.0]


def test_a_class_without_training_rows_has_weight_one():
    loss = build_loss(
        CrossEntropy(class_weights="balanced"),
        class_names=NAMES,
        train_labels=LABELS[:5],
        is_multilabel=False,
    )

    assert loss.per_example.keywords["class_weights_C"].tolist() == pytest.approx([5 / 6, 5 / 4, 1.0])


def test_weights_of_unknown_classes_are_all_reported_with_the_nearest_name():
    settings = BinaryCrossEntropy(positive_weights={"cats": 2.0, "dog": 1.0, "xylophone": 3.0})

    with pytest.raises(RecipeError, match=r"positive_weights: no class 'cats'.*did you mean 'cat'") as caught:
        build_loss(settings, class_names=NAMES, train_labels=PRESENCE, is_multilabel=True)

    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(("settings", "several"), [(CrossEntropy(), True), (BinaryCrossEntropy(), False)])
def test_a_loss_for_the_other_kind_of_labels_is_refused(settings, several):
    labels = PRESENCE if several else LABELS

    with pytest.raises(RecipeError, match=r"does not fit (several classes|one class) per picture; wanted"):
        build_loss(settings, class_names=NAMES, train_labels=labels, is_multilabel=several)
