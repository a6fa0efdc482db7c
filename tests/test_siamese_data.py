"""Rows of text pairs: what is read, what is refused, and that no text stands on both sides of a split."""

import csv

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from pydantic import ValidationError

from hf_tasks.data.order import EpochOrder
from hf_tasks.errors import DataError
from hf_tasks.tasks.siamese.data import labels_of, prepare_splits, texts_of
from hf_tasks.tasks.siamese.sampler import DistinctBatches
from hf_tasks.tasks.siamese.settings import Settings
from hf_tasks.tasks.siamese.split import grouped_split, text_groups


@pytest.fixture
def settings_of(tmp_path, monkeypatch):
    """Settings over a csv file of the rows given; `columns` are its header."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def build(rows, columns=("text_1", "text_2", "label"), named=None, **sections):
        with (tmp_path / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
        data = {"train": {"table": str(tmp_path / "pairs.csv")}, "validation": 0.5, "columns": named or {}}
        return Settings(data={**data, **sections.pop("data", {})}, model={"static": {}}, **sections)

    return build


def _pairs(count):
    return [(f"a{row}", f"b{row}", row % 2) for row in range(count)]


def test_any_column_names_and_any_language_are_read(settings_of):
    rows = [("Привет", "Мир", "1"), ("猫", "犬", "0.0"), ("a", "b", "true"), ("c", "d", "No")]
    settings = settings_of(
        rows, ("story_1", "story_2", "same"), {"text_1": "story_1", "text_2": "story_2", "label": "same"}
    )

    splits = prepare_splits(settings)

    both = {**_by_texts(splits.train), **_by_texts(splits.validation)}
    assert both == {("Привет", "Мир"): 1, ("猫", "犬"): 0, ("a", "b"): 1, ("c", "d"): 0}
    assert splits.kind == "labels"


def test_labels_between_0_and_1_are_scores(settings_of):
    splits = prepare_splits(settings_of([("a", "b", 0.2), ("c", "d", 1), ("e", "f", 0.9), ("g", "h", 0)]))

    assert splits.kind == "scores"


def test_pairs_without_labels_and_triplets(settings_of):
    pairs = prepare_splits(settings_of([("a", "b"), ("c", "d")], ("text_1", "text_2"), {"label": None}))
    triplets = prepare_splits(
        settings_of([("a", "b", "x"), ("c", "d", "y")], ("text_1", "text_2", "not"), {"negative": "not"})
    )

    assert (pairs.kind, pairs.train.column_names) == ("pairs", ["text_1", "text_2"])
    assert (triplets.kind, triplets.train.column_names) == ("triplets", ["text_1", "text_2", "negative"])


def test_a_table_without_labels_is_told_what_else_it_may_be(settings_of):
    with pytest.raises(DataError, match=r"no column 'label' in .*write `label: null` where all pairs"):
        prepare_splits(settings_of([("a", "b")], columns=("text_1", "text_2")))


def test_blank_texts_are_told_with_their_rows(settings_of):
    rows = [("a", "b", 1), ("  ", "d", 0), ("e", "", 1)]

    with pytest.raises(
        DataError, match=r"column 'text_1': 1; .*\n  row 2\n(.*\n)?.*'text_2': 1; .*\n  row 3"
    ):
        prepare_splits(settings_of(rows))


def test_unfit_labels_are_told_with_their_rows(settings_of):
    rows = [("a", "b", "1"), ("c", "d", "maybe"), ("e", "f", "2"), ("g", "h", "nan"), ("i", "j", "")]

    with pytest.raises(
        DataError,
        match=r": 4; write 1 where.* by the highest\n  row 2: 'maybe'\n  row 3: '2'\n  row 4: 'nan'",
    ):
        prepare_splits(settings_of(rows))


def test_one_kind_of_labels_is_refused(settings_of):
    with pytest.raises(
        DataError, match=r"every label of .* rows is 1; wanted pairs of both kinds: .* to null"
    ):
        prepare_splits(settings_of([("a", "b", 1), ("c", "d", 1), ("e", "f", 1)]))


def test_scores_are_refused_by_a_loss_that_wants_0_and_1(settings_of):
    rows = [(f"a{row}", f"b{row}", row / 9) for row in range(10)]

    with pytest.raises(DataError, match="'contrastive' wants labels 0 and 1"):
        prepare_splits(settings_of(rows, loss={"name": "contrastive"}))


def test_multiple_negatives_trains_on_the_true_pairs_alone(settings_of):
    splits = prepare_splits(settings_of(_pairs(40), loss={"name": "multiple-negatives"}))

    trained = {int(first[1:]) for first, _ in texts_of(splits.train)}
    assert "label" not in splits.train.column_names
    assert {row % 2 for row in trained} == {1}
    assert set(labels_of(splits.validation)) == {0, 1}


def test_a_loss_that_needs_labels_is_refused_without_them(settings_of):
    with pytest.raises(ValidationError, match="'cosent' needs labels"):
        settings_of([("a", "b")], ("text_1", "text_2"), {"label": None}, loss={"name": "cosent"})


def test_a_label_and_a_negative_exclude_each_other(settings_of):
    with pytest.raises(ValidationError, match="triplets have no label"):
        settings_of([], named={"negative": "x", "label": "y"})


def test_rows_that_share_texts_through_others_are_one_group():
    groups = text_groups([("a", "b"), ("c", "d"), ("b", "e"), ("f", "e"), ("d", "g")])

    assert groups[0] == groups[2] == groups[3]
    assert groups[1] == groups[4] != groups[0]


def test_a_split_parts_texts_and_keeps_the_share_of_each_label():
    generator = np.random.default_rng(0)
    texts = [(f"a{generator.integers(300)}", f"b{generator.integers(3000)}") for _ in range(1000)]
    strata = generator.integers(0, 2, 1000)

    is_validation, _ = grouped_split(texts, strata, fraction=0.2, seed=1)

    sides = [{text for row, part in zip(texts, is_validation, strict=True) if part == side for text in row}
             for side in (True, False)]  # fmt: skip
    assert sides[0].isdisjoint(sides[1])
    for stratum in (0, 1):
        assert is_validation[strata == stratum].mean() == pytest.approx(0.2, abs=0.05)


def test_labels_have_their_exact_share_where_no_text_is_shared():
    texts = [(f"a{row}", f"b{row}") for row in range(80)]
    strata = np.arange(80) % 2

    is_validation, _ = grouped_split(texts, strata, fraction=0.25, seed=0)

    assert np.bincount(strata[is_validation]).tolist() == [10, 10]


def test_the_order_of_the_rows_does_not_change_a_split():
    texts = [(f"a{row // 2}", f"b{row}") for row in range(50)]
    strata = np.zeros(50, int)

    forward, _ = grouped_split(texts, strata, fraction=0.3, seed=0)
    backward, _ = grouped_split(texts[::-1], strata, fraction=0.3, seed=0)
    other, _ = grouped_split(texts, strata, fraction=0.3, seed=1)

    assert (forward == backward[::-1]).all()
    assert (forward != other).any()
    assert forward.sum() == 14  # of 15, in twos


def test_rows_that_all_hang_together_cannot_be_split():
    with pytest.raises(DataError, match="3 rows hang together by shared texts; name a source"):
        grouped_split([("a", "b"), ("b", "c"), ("c", "d")], np.zeros(3, int), fraction=0.3, seed=0)


def test_what_the_split_did_is_told(settings_of):
    rows = [*_pairs(8), ("a0", "b1", 1)]

    split = prepare_splits(settings_of(rows)).facts["split"]

    assert split["groups"] == 7  # nine rows, of which the last one ties the first two together
    assert split["largest_group_rows"] == 3


def test_no_text_stands_twice_in_a_batch_and_no_batch_is_lost():
    texts = [(f"a{row % 7}", f"b{row}") for row in range(40)]
    order = EpochOrder(40, seed=3)
    batches = DistinctBatches(order, 8, False, texts=texts)

    epochs = []
    for epoch in (0, 1):
        order.set_epoch(epoch)
        epochs.append(list(batches))

    assert len(batches) == 5
    for epoch in epochs:
        assert len(epoch) == 5
        assert all(batch for batch in epoch)
        for batch in epoch:
            firsts = [texts[row][0] for row in batch]
            assert len(set(firsts)) == len(firsts)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("drop_last", [False, True])
def test_processes_share_short_batches_without_losing_one(drop_last):
    """Where the texts are few, no batch is full; the steps of an epoch are known all the same."""
    texts = [(f"a{row % 3}", f"b{row}") for row in range(20)]
    batches = DistinctBatches(EpochOrder(20, seed=0), 5, drop_last, texts=texts)

    shares = [
        list(BatchSamplerShard(batches, num_processes=2, process_index=process, even_batches=False))
        for process in range(2)
    ]

    assert [len(batch) for share in shares for batch in share] == [3, 3, 3, 3]
    assert [batch for pair in zip(*shares, strict=True) for batch in pair] == list(batches)


def test_rows_that_fill_no_batch_are_dropped_if_asked():
    texts = [(str(row),) for row in range(10)]

    found = list(DistinctBatches(EpochOrder(10, seed=0), 4, True, texts=texts))

    assert [len(batch) for batch in found] == [4, 4]


def test_rows_without_shared_texts_all_find_a_batch():
    batches = DistinctBatches(EpochOrder(10, seed=0), 4, False, texts=[(str(row),) for row in range(10)])

    found = list(batches)

    assert [len(batch) for batch in found] == [4, 4, 2]
    assert sorted(row for batch in found for row in batch) == list(range(10))


def _by_texts(rows):
    return dict(zip(texts_of(rows), labels_of(rows).tolist(), strict=True))
