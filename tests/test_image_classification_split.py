"""The stratified split: what holds for any rows, and two splits worked out by hand.

Axes: N rows, C classes.
"""

import hashlib
import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_tasks.tasks.image_classification.split import memberships_of, stratified_split

FRACTIONS = st.floats(0.001, 0.999)
SEEDS = st.integers(0, 2**40)


@st.composite
def single_labels(draw, distinct=True):
    """Paths and classes; the classes are as uneven as data sets are."""
    counts = draw(st.lists(st.integers(1, 25), min_size=2, max_size=6))
    labels = np.repeat(np.arange(len(counts)), counts)
    numbers = range(len(labels)) if distinct else draw(
        st.lists(st.integers(0, len(labels) // 2), min_size=len(labels), max_size=len(labels))
    )  # fmt: skip
    return [f"кот {number}.png" for number in numbers], labels


@st.composite
def several_labels(draw):
    classes = draw(st.integers(1, 5))
    rows = draw(
        st.lists(st.lists(st.booleans(), min_size=classes, max_size=classes), min_size=2, max_size=40)
    )
    numbers = draw(st.lists(st.integers(0, 30), min_size=len(rows), max_size=len(rows)))
    return [f"{number}.png" for number in numbers], np.array(rows, np.float32)


def any_labels():
    return single_labels() | single_labels(distinct=False) | several_labels()


@settings(deadline=None)
@given(any_labels(), FRACTIONS, SEEDS)
def test_every_class_stays_in_training(data, fraction, seed):
    paths, labels = data

    is_validation_N = stratified_split(paths, labels, fraction=fraction, seed=seed)

    rows, classes = memberships_of(labels)
    assert set(classes[~is_validation_N[rows]]) == set(classes)
    assert not is_validation_N.all()


@settings(deadline=None)
@given(any_labels(), FRACTIONS, SEEDS)
def test_rows_of_one_picture_are_on_one_side(data, fraction, seed):
    paths, labels = data

    is_validation_N = stratified_split(paths, labels, fraction=fraction, seed=seed)

    assert len(set(zip(paths, is_validation_N.tolist(), strict=True))) == len(set(paths))


@settings(deadline=None, max_examples=200)
@given(any_labels(), FRACTIONS, SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_plays_no_part(data, fraction, seed, random):
    paths, labels = data
    order = list(range(len(paths)))
    random.shuffle(order)

    sides = stratified_split(paths, labels, fraction=fraction, seed=seed)
    shuffled = stratified_split([paths[row] for row in order], labels[order], fraction=fraction, seed=seed)

    assert shuffled.tolist() == sides[order].tolist()


@settings(deadline=None)
@given(single_labels(), FRACTIONS, SEEDS)
def test_each_class_gives_its_fraction_to_the_nearest_row(data, fraction, seed):
    paths, labels = data

    is_validation_N = stratified_split(paths, labels, fraction=fraction, seed=seed)

    given_rows = Counter(labels[is_validation_N].tolist())
    for label, count in Counter(labels.tolist()).items():
        assert abs(given_rows[label] - count * fraction) <= 1
        assert given_rows[label] <= count - 1
    wanted = max(1, math.floor(len(paths) * fraction + 0.5))
    able = sum(count - 1 for count in Counter(labels.tolist()).values())
    assert is_validation_N.sum() <= wanted
    assert is_validation_N.any() == (able > 0)


@pytest.mark.parametrize(
    "labels", [np.repeat([0, 1, 2], [100, 50, 10]), np.repeat(np.eye(3), [100, 50, 10], axis=0)]
)
def test_a_fifth_of_a_hundred_fifty_and_ten_is_twenty_ten_and_two(labels):
    paths = [f"{row}.png" for row in range(160)]

    is_validation_N = stratified_split(paths, labels, fraction=0.2, seed=0)

    _, classes = memberships_of(labels[is_validation_N])
    assert np.bincount(classes).tolist() == [20, 10, 2]


def test_the_largest_remainders_get_what_rounding_leaves():
    # Quotas 1.5, 2.5 and 1: five rows are wanted of ten, the whole parts are four; the first gets one more.
    labels = np.repeat([0, 1, 2], [3, 5, 2])

    is_validation_N = stratified_split([f"{row}.png" for row in range(10)], labels, fraction=0.5, seed=3)

    assert np.bincount(labels[is_validation_N]).tolist() == [2, 2, 1]


def test_as_many_rows_are_drawn_as_come_nearest_to_the_fraction():
    labels = np.repeat([0, 1], [5, 5])  # 2.7 of ten rows, where the whole parts of both classes are 1

    is_validation_N = stratified_split([f"{row}.png" for row in range(10)], labels, fraction=0.27, seed=0)

    assert is_validation_N.sum() == 3


def test_combinations_of_labels_are_strata():
    combinations = [[1, 0], [0, 1], [1, 1], [0, 0]]
    labels = np.repeat(np.array(combinations, np.float32), 40, axis=0)

    is_validation_N = stratified_split([f"{row}.png" for row in range(160)], labels, fraction=0.25, seed=1)

    counts = Counter(map(tuple, labels[is_validation_N].astype(int).tolist()))
    assert counts == {tuple(combination): 10 for combination in combinations}


def test_combinations_that_occur_once_are_drawn_together():
    pairs = list(itertools.combinations(range(4), 2))
    labels = np.array([[label in pair for label in range(4)] for pair in pairs], np.float32)

    is_validation_N = stratified_split([f"{row}.png" for row in range(6)], labels, fraction=0.34, seed=0)

    # A stratum each would give none of its only row; together they give 0.34 x 6 = 2 rows.
    assert is_validation_N.sum() == 2


def test_a_class_that_was_drawn_whole_gets_its_first_picture_back():
    # Each combination occurs once, so half of the six rows are drawn by their hashes: both rows of class 0.
    classes_as_drawn = [{1}, {0, 1}, {0, 2}, {1, 2}, {2}, {1, 2, 3}]
    order = by_hand_order(range(6), seed=5)
    labels = np.zeros((6, 4), np.float32)
    for row, classes in zip(order, classes_as_drawn, strict=True):
        labels[row, list(classes)] = 1

    is_validation_N = stratified_split([f"{row}.png" for row in range(6)], labels, fraction=0.5, seed=5)

    assert set(np.flatnonzero(is_validation_N)) == {order[0], order[2]}


@pytest.mark.parametrize("labels", [np.arange(5), np.eye(5)])
def test_one_row_a_class_cannot_be_split(labels):
    is_validation_N = stratified_split([f"{row}.png" for row in range(5)], labels, fraction=0.5, seed=0)

    assert not is_validation_N.any()


def test_another_seed_draws_other_rows():
    paths, labels = [f"{row}.png" for row in range(200)], np.arange(200) % 4

    draws = {stratified_split(paths, labels, fraction=0.2, seed=seed).tobytes() for seed in range(10)}

    assert len(draws) == 10


def test_a_row_that_is_added_moves_hardly_any_other():
    paths, labels = [f"{row}.png" for row in range(1001)], np.arange(1001) % 4

    before = stratified_split(paths[:1000], labels[:1000], fraction=0.2, seed=0)
    after = stratified_split(paths, labels, fraction=0.2, seed=0)

    assert np.count_nonzero(before != after[:1000]) <= 2


def test_the_split_is_the_same_on_every_machine():
    is_validation_N = stratified_split(
        [f"{row}.png" for row in range(20)], np.arange(20) % 2, fraction=0.2, seed=7
    )

    # By hand: of each class the two paths with the smallest BLAKE2b hash of "7\0PATH".
    assert np.flatnonzero(is_validation_N).tolist() == by_hand(seed=7)


def by_hand(*, seed):
    return sorted(row for first in (0, 1) for row in by_hand_order(range(first, 20, 2), seed=seed)[:2])


def by_hand_order(rows, *, seed):
    return sorted(
        rows, key=lambda row: hashlib.blake2b(f"{seed}\0{row}.png".encode(), digest_size=8).digest()
    )
