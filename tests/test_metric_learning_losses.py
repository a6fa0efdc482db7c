"""Each loss in value and gradient against pytorch-metric-learning and against plain loops over numbers."""

import math

import pytest
import torch
from pytorch_metric_learning import losses, miners, reducers

from hf_tasks.errors import RecipeError
from hf_tasks.tasks.metric_learning.loss_modules import PairLoss, build_loss
from hf_tasks.tasks.metric_learning.losses import arcface_logits, sphereface_logits, supervised_contrastive
from hf_tasks.tasks.metric_learning.settings import (
    ArcFace,
    CosFace,
    MultiSimilarity,
    NormalisedSoftmax,
    Pml,
    ProxyAnchor,
    SphereFace,
    SubCentreArcFace,
    SupervisedContrastive,
    Triplet,
)

CLASSES, WIDTH = 5, 8
LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3, 3, 4])


def _embeddings(seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(len(LABELS), WIDTH, generator=generator)).requires_grad_()


def _centres_in(theirs, ours):
    """Give a loss of theirs, where weights stand in columns, the class centres of ours."""
    weights = theirs.proxies if hasattr(theirs, "proxies") else theirs.W
    ours_CD = ours.centres.detach()
    weights.data = ours_CD.clone() if weights.shape == ours_CD.shape else ours_CD.T.clone()
    return weights


SIZES = {"num_classes": CLASSES, "embedding_size": WIDTH}
DEGREES = math.degrees(0.5)
SUB_CENTRE, SPHERE = "sub-centre-arcface", SphereFace(name="sphereface", margin=4, scale=2)
CENTRE_LOSSES = [
    (ArcFace(), lambda: losses.ArcFaceLoss(**SIZES, margin=DEGREES, scale=64)),
    (SubCentreArcFace(name=SUB_CENTRE), lambda: losses.SubCenterArcFaceLoss(**SIZES, margin=DEGREES)),
    (CosFace(name="cosface"), lambda: losses.CosFaceLoss(**SIZES, margin=0.4, scale=30)),
    (SPHERE, lambda: losses.SphereFaceLoss(**SIZES, margin=4, scale=2)),
    (NormalisedSoftmax(name="normalised-softmax"), lambda: losses.NormalizedSoftmaxLoss(**SIZES)),
    (ProxyAnchor(name="proxy-anchor"), lambda: losses.ProxyAnchorLoss(**SIZES)),
]  # fmt: skip


def _mined(loss, miner):
    def call(embeddings, labels):
        return loss(embeddings, labels, miner(embeddings, labels))

    return call


PAIR_LOSSES = [
    (
        Triplet(name="triplet"),
        lambda: _mined(
            losses.TripletMarginLoss(margin=0.2, reducer=reducers.MeanReducer()), miners.BatchHardMiner()
        ),
    ),
    (
        MultiSimilarity(name="multi-similarity"),
        lambda: _mined(losses.MultiSimilarityLoss(), miners.MultiSimilarityMiner(epsilon=0.1)),
    ),
    (SupervisedContrastive(name="supervised-contrastive"), losses.SupConLoss),
]
ALL_SETTINGS = [settings for settings, _ in [*CENTRE_LOSSES, *PAIR_LOSSES]]


def _name(value):
    return value.name if hasattr(value, "name") else ""


@pytest.mark.parametrize(("settings", "build_theirs"), CENTRE_LOSSES, ids=_name)
def test_a_loss_with_centres_is_that_of_pytorch_metric_learning(settings, build_theirs):
    ours, theirs = build_loss(settings, classes=CLASSES, width=WIDTH), build_theirs()
    weights = _centres_in(theirs, ours)
    embeddings, labels = _embeddings(), LABELS.clamp(max=CLASSES - 2)  # one class is not in the batch
    units = torch.nn.functional.normalize(embeddings)

    value = ours(embeddings, labels)
    expected = theirs(units, labels)

    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    found = torch.autograd.grad(value, [embeddings, ours.centres])
    wanted = torch.autograd.grad(expected, [embeddings, weights])
    wanted = (wanted[0], wanted[1] if wanted[1].shape == found[1].shape else wanted[1].T)
    for ours_gradient, their_gradient in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours_gradient, their_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("settings", "build_theirs"), PAIR_LOSSES, ids=_name)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_loss_of_pairs_is_that_of_pytorch_metric_learning(settings, build_theirs, seed):
    embeddings = _embeddings(seed)
    # One picture alone in its class has no positive, for us and for them.
    ours, theirs = build_loss(settings, classes=CLASSES, width=WIDTH), build_theirs()

    value = ours(embeddings, LABELS)
    expected = theirs(embeddings, LABELS)

    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    (found,), (wanted,) = (torch.autograd.grad(loss, [embeddings]) for loss in (value, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


def _plain_pair_loss(settings, units):
    """The formulas of the papers, a picture and a pair at a time."""
    cosines = (units @ units.T).tolist()
    labels, costs = LABELS.tolist(), []
    for a in range(len(labels)):
        positives = [cosines[a][i] for i in range(len(labels)) if i != a and labels[i] == labels[a]]
        negatives = [cosines[a][i] for i in range(len(labels)) if labels[i] != labels[a]]
        match settings:
            case Triplet(margin=margin):
                furthest = max((math.sqrt(2 - 2 * cosine) for cosine in positives), default=None)
                nearest = min(math.sqrt(2 - 2 * cosine) for cosine in negatives)
                costs += [] if furthest is None else [max(0, furthest - nearest + margin)]
            case SupervisedContrastive(temperature=t):
                total = sum(math.exp(cosine / t) for cosine in positives + negatives)
                logs = [math.log(math.exp(cosine / t) / total) for cosine in positives]
                costs += [-sum(logs) / len(logs)] if logs else []
            case MultiSimilarity(alpha=alpha, beta=beta, base=base, epsilon=epsilon):
                hard = [p for p in positives if p - epsilon < max(negatives)]
                close = [n for n in negatives if positives and n + epsilon > min(positives)]
                pull = math.log(1 + sum(math.exp(-alpha * (p - base)) for p in hard)) / alpha
                push = math.log(1 + sum(math.exp(beta * (n - base)) for n in close)) / beta
                costs.append(pull + push)
    return sum(costs) / len(costs)


@pytest.mark.parametrize("settings", [settings for settings, _ in PAIR_LOSSES], ids=_name)
def test_a_loss_of_pairs_is_the_formula_of_its_paper(settings):
    embeddings = _embeddings(3).detach().double()
    expected = _plain_pair_loss(settings, torch.nn.functional.normalize(embeddings))

    value = build_loss(settings, classes=CLASSES, width=WIDTH)(embeddings, LABELS)

    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "true_logit"),
    [
        (ArcFace(), lambda cosine: 64 * math.cos(math.acos(cosine) + 0.5)),
        (CosFace(name="cosface"), lambda cosine: 30 * (cosine - 0.4)),
        (SphereFace(name="sphereface"), lambda cosine: 64 * _plain_psi(math.acos(cosine), 1.35)),
        (NormalisedSoftmax(name="normalised-softmax"), lambda cosine: cosine / 0.05),
    ],
    ids=_name,
)
def test_a_loss_with_centres_is_the_formula_of_its_paper(settings, true_logit):
    loss = build_loss(settings, classes=CLASSES, width=WIDTH)
    embeddings = _embeddings(4).detach()
    units, centres = (torch.nn.functional.normalize(rows.double()) for rows in (embeddings, loss.centres))
    scale = getattr(settings, "scale", None) or 1 / settings.temperature
    costs = []
    for cosines, label in zip((units @ centres.T).tolist(), LABELS.tolist(), strict=True):
        logits = [scale * cosine for cosine in cosines]
        logits[label] = true_logit(cosines[label])
        costs.append(math.log(sum(math.exp(logit) for logit in logits)) - logits[label])

    value = loss(embeddings, LABELS)

    assert value.item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)


def _plain_psi(angle, margin):
    k = 0
    while not k * math.pi / margin <= angle < (k + 1) * math.pi / margin:
        k += 1
    return (-1) ** k * math.cos(margin * angle) - 2 * k


@pytest.mark.parametrize(
    ("logits", "margin"),
    [(arcface_logits, 0.5), (arcface_logits, 2.2), (sphereface_logits, 1.35), (sphereface_logits, 4)],
)
def test_the_true_logit_falls_with_the_angle_everywhere(logits, margin):
    cosines = torch.linspace(1, -1, 2001)[:, None]

    values = logits(cosines, torch.zeros(2001, dtype=torch.int64), margin=margin, scale=1.0)[:, 0]

    assert (values.diff() < 0).all()


def test_margin_lowers_only_the_true_class():
    cosines = torch.tensor([[0.5, 0.5]])

    logits = arcface_logits(cosines, torch.tensor([0]), margin=math.pi / 6, scale=1.0)

    expected = torch.tensor([[0.0, 0.5]])  # acos(0.5) + 30 degrees = 90 degrees; the other class is untouched
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("settings", ALL_SETTINGS, ids=_name)
def test_a_loss_does_not_know_how_long_its_embeddings_are(settings):
    loss = build_loss(settings, classes=CLASSES, width=WIDTH)

    torch.testing.assert_close(loss(_embeddings(), LABELS), loss(_embeddings(scale=1e3), LABELS))


@pytest.mark.parametrize("settings", ALL_SETTINGS, ids=_name)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_loss_of_half_precision_embeddings_is_computed_in_float32(settings, dtype):
    loss = build_loss(settings, classes=CLASSES, width=WIDTH)
    embeddings = _embeddings().detach().to(dtype).requires_grad_()

    with torch.autocast("cpu", dtype=dtype):
        value = loss(embeddings, LABELS)

    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(embeddings.float(), LABELS))
    assert torch.autograd.grad(value, embeddings)[0].isfinite().all()


@pytest.mark.parametrize("settings", ALL_SETTINGS, ids=_name)
def test_equal_and_opposite_embeddings_have_finite_gradients(settings):
    loss = build_loss(settings, classes=CLASSES, width=WIDTH)
    embeddings = torch.ones(len(LABELS), WIDTH)
    embeddings[1::2] *= -1
    embeddings.requires_grad_()
    if hasattr(loss, "centres"):
        loss.centres.data[0] = 1.0

    value = loss(embeddings, LABELS)
    value.backward()

    assert value.isfinite()
    assert embeddings.grad.isfinite().all()
    assert all(weights.grad.isfinite().all() for weights in loss.parameters())


@pytest.mark.parametrize("settings", ALL_SETTINGS, ids=_name)
@pytest.mark.parametrize(
    "labels", [torch.arange(4), torch.zeros(4, dtype=torch.int64)], ids=["no-pairs", "all"]
)
def test_a_batch_without_positives_or_negatives_has_a_finite_loss(settings, labels):
    loss = build_loss(settings, classes=CLASSES, width=WIDTH)
    embeddings = _embeddings().detach()[:4].requires_grad_()

    value = loss(embeddings, labels)
    value.backward()

    assert value.isfinite()
    assert embeddings.grad.isfinite().all()


def test_the_memory_adds_the_newest_embeddings_as_references_without_gradients():
    first, second, third = (_embeddings(seed) for seed in range(3))
    plain = PairLoss(lambda *args: supervised_contrastive(*args, temperature=0.1), width=WIDTH)
    loss = PairLoss(lambda *args: supervised_contrastive(*args, temperature=0.1), memory=15, width=WIDTH)

    values = [loss(batch, LABELS) for batch in (first, second, third)]

    torch.testing.assert_close(values[0], plain(first, LABELS))
    remembered = torch.cat([second, first[:5]]).detach()
    labels = torch.cat([LABELS, LABELS[:5]])
    units, references = (
        torch.nn.functional.normalize(rows) for rows in (third, torch.cat([third, remembered]))
    )
    is_same = LABELS[:, None] == torch.cat([LABELS, labels])
    is_other = ~torch.eye(10, 25, dtype=torch.bool)
    expected = supervised_contrastive(
        units @ references.T, is_same & is_other, ~is_same & is_other, temperature=0.1
    )
    torch.testing.assert_close(values[2], expected)
    assert torch.autograd.grad(values[2], [first, third], allow_unused=True)[0] is None
    assert set(loss.state_dict()) == {"memory", "memory_labels"}
    remembered = loss.memory.clone()
    loss.eval()(first, LABELS)
    assert torch.equal(loss.memory, remembered)


def test_a_memory_that_is_saved_and_loaded_goes_on_where_it_was():
    first, second = (_embeddings(seed) for seed in range(2))
    kept, fresh = (build_loss(Triplet(name="triplet", memory=15), classes=5, width=WIDTH) for _ in range(2))
    kept(first, LABELS)

    fresh.load_state_dict(kept.state_dict())

    expected = kept(second, LABELS)
    assert torch.equal(fresh(second, LABELS), expected)
    assert not torch.equal(
        build_loss(Triplet(name="triplet", memory=15), classes=5, width=WIDTH)(second, LABELS), expected
    )


def test_a_loss_of_pytorch_metric_learning_is_had_by_name():
    settings = Pml(name="pml/CircleLoss", m=0.3, gamma=64)
    expected = losses.CircleLoss(m=0.3, gamma=64)(_embeddings(), LABELS)

    value = build_loss(settings, classes=CLASSES, width=WIDTH)(_embeddings(), LABELS)

    torch.testing.assert_close(value, expected)


def test_a_loss_by_name_gets_number_of_classes_and_width():
    loss = build_loss(Pml(name="pml/ProxyNCALoss", softmax_scale=2), classes=CLASSES, width=WIDTH)

    assert {tuple(weights.shape) for weights in loss.parameters()} == {(CLASSES, WIDTH)}


def test_an_unknown_argument_of_a_loss_by_name_is_refused():
    with pytest.raises(RecipeError, match=r"loss.gama: pml/CircleLoss takes .*did you mean 'gamma'"):
        build_loss(Pml(name="pml/CircleLoss", gama=64), classes=CLASSES, width=WIDTH)


def test_every_name_of_the_settings_is_a_loss_of_the_library():
    names = Pml.model_fields["name"].annotation.__args__

    missing = [name for name in names if not hasattr(losses, name.removeprefix("pml/"))]

    assert missing == []
