"""Batches of classes, counted again from the keys."""

from collections import Counter

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from hf_tasks.errors import RecipeError
from hf_tasks.tasks.metric_learning.sampler import ClassBatchSampler


def _batches(sampler, labels):
    size = sampler.classes * sampler.pictures
    rows = [key.row for key in sampler]
    return [labels[rows[start : start + size]] for start in range(0, len(rows), size)], rows


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=8),
    classes=st.integers(2, 4),
    pictures=st.integers(2, 5),
    seed=st.integers(0, 100),
)
def test_every_batch_has_p_classes_with_k_pictures(sizes, classes, pictures, seed):
    classes = min(classes, len(sizes))
    labels = np.repeat(np.arange(len(sizes)) * 3, sizes)
    sampler = ClassBatchSampler(labels, classes=classes, pictures=pictures, seed=seed)

    batches, rows = _batches(sampler, labels)

    assert len(rows) == len(sampler)
    assert len(batches) == max(1, len(labels) // (classes * pictures))
    for number, batch in enumerate(batches):
        assert set(Counter(batch.tolist()).values()) == {pictures}
        assert len(set(batch.tolist())) == classes
        start = number * len(batch)
        for label in set(batch.tolist()):
            own = [row for row in rows[start : start + len(batch)] if labels[row] == label]
            assert len(set(own)) == min(pictures, (labels == label).sum())


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 20), min_size=3, max_size=8), seed=st.integers(0, 100))
def test_all_classes_are_drawn_equally_often(sizes, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    sampler = ClassBatchSampler(labels, classes=2, pictures=2, seed=seed)

    batches, _ = _batches(sampler, labels)

    counts = Counter(int(label) for batch in batches for label in set(batch.tolist()))
    drawn = [counts[label] for label in range(len(sizes))]
    assert max(drawn) - min(drawn) <= 1 or len(batches) == 1


def test_an_epoch_depends_on_seed_and_epoch_alone():
    labels = np.repeat(np.arange(4), 10)
    first, again, other = (ClassBatchSampler(labels, classes=2, pictures=3, seed=seed) for seed in (1, 1, 2))
    list(again)  # an earlier iteration leaves nothing behind

    epochs = []
    for epoch in (0, 1):
        for sampler in (first, again, other):
            sampler.set_epoch(epoch)
        epochs.append(list(first))
        assert list(again) == epochs[-1]
        assert list(other) != epochs[-1]

    assert [key.row for key in epochs[0]] != [key.row for key in epochs[1]]
    # The next seed does not see at once what this one sees an epoch later.
    other.set_epoch(0)
    assert [key.row for key in other] != [key.row for key in epochs[1]]


def test_a_picture_that_comes_again_is_augmented_anew():
    sampler = ClassBatchSampler(np.array([0, 0, 1, 1]), classes=2, pictures=5, seed=0)

    keys = list(sampler)

    assert len(set(keys)) == len(keys) == 10
    assert {key.row for key in keys} == {0, 1, 2, 3}


def test_two_processes_share_a_batch_without_overlap():
    labels = np.repeat(np.arange(6), 8)
    sampler = ClassBatchSampler(labels, classes=4, pictures=4, seed=0)
    whole = list(BatchSampler(sampler, 16, drop_last=False))

    shares = [
        list(BatchSamplerShard(BatchSampler(sampler, 8, drop_last=False), 2, rank)) for rank in range(2)
    ]

    assert [first + second for first, second in zip(*shares, strict=True)] == whole


def test_more_classes_than_there_are_is_refused():
    with pytest.raises(RecipeError, match=r"sampler.classes: found 4, but there are 3 classes"):
        ClassBatchSampler(np.arange(3), classes=4, pictures=2, seed=0)
