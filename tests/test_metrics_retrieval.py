"""Retrieval figures against a plain float64 ranking, by hand, and against pytorch-metric-learning."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_tasks.metrics.cosines import LeftOut, cosine_blocks
from hf_tasks.metrics.neighbours import GROUP, largest, nearest_neighbours, unit_rows
from hf_tasks.metrics.retrieval import (
    NOBODY,
    LabelledEmbeddings,
    average_scores,
    join_scores,
    score_queries,
)

ARRAYS = (
    "matches_Q", "hits_QT", "average_precision_at_r_Q", "r_precision_Q", "first_match_rank_Q",
    "first_match_Q", "first_match_cosine_Q", "other_class_cosine_Q", "neighbours_QK", "neighbour_cosines_QK",
)  # fmt: skip


def _plain_ranking(query, gallery, left_out):
    """Gallery rows, nearest first; a loop over float64 cosines of the float32 unit vectors."""
    cosines = [(torch.as_tensor(query).double() * row.double()).sum().item() for row in gallery]
    rows = [row for row in range(len(gallery)) if not left_out[row]]
    return sorted(rows, key=lambda row: (-cosines[row], row)), cosines


def _plain_scores(queries, gallery, own_rows, ks):
    rows = []
    units, gallery_units = unit_rows(queries.embeddings_ND), unit_rows(gallery.embeddings_ND)
    for q in range(len(units)):
        left_out = np.arange(len(gallery_units)) == own_rows[q]
        if queries.groups_N is not None and queries.groups_N[q] != NOBODY:
            left_out |= gallery.groups_N == queries.groups_N[q]
        ranking, cosines = _plain_ranking(units[q], gallery_units, left_out)
        is_match = [gallery.labels_N[row] == queries.labels_N[q] for row in ranking]
        count = sum(is_match)
        precisions = [sum(is_match[: r + 1]) / (r + 1) for r in range(count) if is_match[r]]
        first = is_match.index(True) if count else None
        other = next(
            (cosines[row] for row, match in zip(ranking, is_match, strict=True) if not match), -np.inf
        )
        rows.append(
            {
                "matches_Q": count,
                "hits_QT": [sum(is_match[:k]) for k in ks],
                "average_precision_at_r_Q": sum(precisions) / count if count else 0,
                "r_precision_Q": sum(is_match[:count]) / count if count else 0,
                "first_match_rank_Q": first + 1 if count else 0,
                "first_match_Q": ranking[first] if count else NOBODY,
                "first_match_cosine_Q": cosines[ranking[first]] if count else -np.inf,
                "other_class_cosine_Q": other,
                "neighbours_QK": ranking[:5],
            }
        )
    return rows


def _random_case(seed, *, queries, gallery, width, classes, levels=None, groups=False):
    """Embeddings of few levels are full of ties, those of none differ by what float32 cannot compare.

    Queries and gallery share a picture here and there.
    """
    generator = np.random.default_rng(seed)

    def draw(count):
        if levels is None:
            return generator.normal(size=(count, width)).astype(np.float32)
        if levels == 0:
            return (1 + 3e-4 * generator.normal(size=(count, width))).astype(np.float32)
        return generator.integers(-levels, levels + 1, (count, width)).astype(np.float32)

    gallery_ND, query_ND = draw(gallery), draw(queries)
    gallery_labels = generator.integers(0, classes, gallery)
    query_labels = generator.integers(0, classes + 1, queries)
    gallery_groups = generator.integers(-1, 3, gallery)
    query_groups = generator.integers(-1, 3, queries)
    own_rows = np.where(generator.random(queries) < 0.3, generator.integers(0, gallery, queries), NOBODY)
    shared = own_rows != NOBODY
    query_ND[shared] = gallery_ND[own_rows[shared]]
    query_labels[shared] = gallery_labels[own_rows[shared]]
    query_groups[shared] = gallery_groups[own_rows[shared]]
    return (
        LabelledEmbeddings(query_ND, query_labels, query_groups if groups else None),
        LabelledEmbeddings(gallery_ND, gallery_labels, gallery_groups if groups else None),
        own_rows,
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    queries=st.integers(1, 8),
    gallery=st.integers(1, 60),
    width=st.integers(1, 6),
    classes=st.integers(1, 30),
    levels=st.sampled_from([None, 0, 1, 2]),
    groups=st.booleans(),
    block_cells=st.sampled_from([1, 50, 10**6]),
)
def test_every_score_is_that_of_a_plain_ranking_in_float64(seed, block_cells, **case):
    left, right, own_rows = _random_case(seed, **case)
    ks = (1, 3, 7)

    scores = score_queries(left, right, own_rows_Q=own_rows, ks=ks, block_cells=block_cells)

    for q, expected in enumerate(_plain_scores(left, right, own_rows, ks)):
        for name, value in expected.items():
            found = getattr(scores, name)[q]
            if name == "neighbours_QK":
                found = [row for row in found.tolist() if row != NOBODY]
            np.testing.assert_allclose(found, value, rtol=1e-12, atol=1e-15, err_msg=name)


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize(("levels", "classes"), [(None, 100), (None, 3), (0, 100), (0, 3), (1, 100)])
def test_a_gallery_of_many_tiles_is_ranked_as_a_whole(levels, classes, groups):
    left, right, own_rows = _random_case(
        5, queries=12, gallery=700, width=4, classes=classes, levels=levels, groups=groups
    )

    scores = score_queries(left, right, own_rows_Q=own_rows, block_cells=1)  # 64 gallery rows at a time

    for q, expected in enumerate(_plain_scores(left, right, own_rows, (1, 5, 10))):
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(scores, name)[q], value, rtol=1e-12, atol=1e-15, err_msg=name)


@pytest.mark.parametrize("nearest_last", [False, True])
def test_no_more_than_the_nearest_are_held_of_a_gallery_that_comes_ever_nearer(nearest_last):
    angles = np.linspace(1.5, 0, 2_000) if nearest_last else np.zeros(2_000)
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)

    rows, _ = nearest_neighbours(np.array([[1.0, 0.0]]), gallery, count=3, block_cells=1)

    assert rows.tolist() == [[1_999, 1_998, 1_997] if nearest_last else [0, 1, 2]]


@pytest.mark.parametrize(("count", "queries"), [(1, 256), (100, 81), (1_000, 16)])
def test_the_more_neighbours_are_wanted_the_fewer_queries_share_the_memory(count, queries):
    gallery = unit_rows(np.eye(4_000, 2))

    block = next(cosine_blocks(np.ones((600, 2)), gallery, left_out=LeftOut(), count=count, tile_cells=2**16))

    # A square of cosines; or eight candidates for each neighbour, at most the gallery: 65,536 / 800, / 4,000.
    assert len(block.queries_BD) == queries


def test_the_first_match_is_found_far_behind_the_nearest_few():
    angles = np.linspace(0, 3, 200)
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    labels = np.zeros(200, np.int64)
    labels[[150, 180]] = 1

    scores = score_queries(
        LabelledEmbeddings(np.array([[1.0, 0.0]], np.float32), np.array([1])),
        LabelledEmbeddings(gallery, labels),
    )

    assert scores.first_match_rank_Q.tolist() == [151]
    assert scores.first_match_Q.tolist() == [150]
    assert average_scores(scores)["mrr"] == 1 / 151


def test_the_nearest_of_another_class_is_found_behind_all_matches():
    angles = np.linspace(0, 1, 20)
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)

    scores = score_queries(
        LabelledEmbeddings(np.array([[1.0, 0.0]]), np.array([0])),
        LabelledEmbeddings(gallery, np.repeat([0, 1], [15, 5])),
    )

    assert scores.other_class_cosine_Q == pytest.approx(np.cos(angles[15]), abs=1e-7)


def test_equal_pictures_rank_in_the_order_of_the_gallery():
    vector = np.random.default_rng(0).normal(size=256).astype(np.float32)
    gallery = np.tile(vector, (1003, 1))

    rows, cosines = nearest_neighbours(vector[None], gallery, count=20)

    assert rows.tolist() == [list(range(20))]
    assert len(np.unique(cosines)) == 1


@pytest.mark.parametrize("block_cells", [1, 250, 10**6])
def test_rows_of_one_set_are_no_neighbours_of_their_own(block_cells):
    rows = np.random.default_rng(0).normal(size=(40, 5))

    neighbours, cosines = nearest_neighbours(rows, None, count=3, block_cells=block_cells)

    units = unit_rows(rows).double().numpy()
    whole = units @ units.T
    np.fill_diagonal(whole, -2)
    order = np.argsort(-whole, axis=1)[:, :3]
    np.testing.assert_array_equal(neighbours, order)
    np.testing.assert_allclose(cosines, np.take_along_axis(whole, order, axis=1), atol=1e-12)


@pytest.mark.parametrize(("rows", "wanted"), [(1, 0), (2, 1), (4, 3)])
def test_there_are_no_more_neighbours_than_other_rows(rows, wanted):
    neighbours, cosines = nearest_neighbours(np.eye(4)[:rows], None, count=3)

    assert neighbours.shape == cosines.shape == (rows, wanted)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 5), levels=st.sampled_from([3, 50, 10**6]))
def test_the_largest_of_a_wide_row_are_those_of_a_whole_sort(seed, count, levels):
    generator = np.random.default_rng(seed)
    width = GROUP * (4 * count + int(generator.integers(0, 3))) + int(generator.integers(0, GROUP))
    values = torch.from_numpy(generator.integers(0, levels, (6, width)).astype(np.float32))
    values[:, generator.integers(0, width)] = levels + 1.0
    values[generator.random((6, width)) < 0.2] = -torch.inf

    found, columns = largest(values, count)

    torch.testing.assert_close(found, values.sort(dim=1, descending=True).values[:, :count], rtol=0, atol=0)
    torch.testing.assert_close(found, values.gather(1, columns), rtol=0, atol=0)
    assert all(len(set(row)) == count for row in columns.tolist())


@pytest.mark.parametrize("block_cells", [1, 3_000, 2**24])
def test_scores_know_nothing_of_blocks_and_shares(block_cells):
    generator = np.random.default_rng(1)
    centres = generator.normal(size=(40, 64))
    labels = np.arange(600) % 40
    embeddings = (centres[labels] + generator.normal(size=(600, 64))).astype(np.float32)
    embeddings[300:320] = embeddings[:20]
    queries = LabelledEmbeddings(embeddings[:250], labels[:250])
    gallery = LabelledEmbeddings(embeddings[250:], labels[250:])
    whole = score_queries(queries, gallery)

    shares = [
        score_queries(
            LabelledEmbeddings(queries.embeddings_ND[rank::3], queries.labels_N[rank::3]),
            gallery,
            block_cells=block_cells,
        )
        for rank in range(3)
    ]

    order = np.concatenate([np.arange(rank, 250, 3) for rank in range(3)])
    joined = join_scores(shares).select(np.argsort(order))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name), err_msg=name)
    assert average_scores(joined) == average_scores(whole)


def test_a_picture_does_not_match_itself_nor_its_group():
    embeddings = np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1]], np.float32)
    pictures = LabelledEmbeddings(embeddings, np.array([0, 0, 0, 1]), np.array([7, 7, NOBODY, NOBODY]))

    scores = score_queries(pictures, pictures, own_rows_Q=np.arange(4))

    # The first two are one shot, so each is left with the third; the fourth has no other of its class.
    assert scores.matches_Q.tolist() == [1, 1, 2, 0]
    assert scores.neighbours_QK[:, 0].tolist() == [2, 2, 1, 2]
    assert scores.neighbours_QK[0].tolist() == [2, 3, NOBODY, NOBODY]  # the gallery has four


def test_figures_by_hand():
    # Cosine falls with the angle; ranking of the query is A B A B A, and R is 3.
    degrees = np.radians([0, 10, 20, 30, 40, 50])
    vectors = np.stack([np.cos(degrees), np.sin(degrees)], axis=1)
    gallery = LabelledEmbeddings(vectors[1:], np.array([0, 1, 0, 1, 0]))

    figures = average_scores(
        score_queries(LabelledEmbeddings(vectors[:1], np.array([0])), gallery, ks=(1, 2, 5))
    )

    assert figures == pytest.approx(
        {
            "cmc_at_1": 1, "cmc_at_2": 1, "cmc_at_5": 1,
            "precision_at_1": 1, "precision_at_2": 0.5, "precision_at_5": 0.6,
            "map_at_r": (1 + 2 / 3) / 3, "r_precision": 2 / 3, "mrr": 1,
        }
    )  # fmt: skip


def test_queries_of_unknown_classes_are_in_no_average():
    gallery = LabelledEmbeddings(np.eye(3), np.array([0, 1, 2]))
    queries = LabelledEmbeddings(np.eye(3), np.array([0, 2, 9]))

    figures = average_scores(score_queries(queries, gallery))

    assert figures["cmc_at_1"] == 0.5
    assert average_scores(score_queries(LabelledEmbeddings(np.eye(3)[:1], np.array([9])), gallery)) == {}


@pytest.mark.parametrize("one_set", [False, True])
def test_figures_are_those_of_pytorch_metric_learning(one_set):
    accuracy_calculator = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    inference = pytest.importorskip("pytorch_metric_learning.utils.inference")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 30, 900)
    centres = generator.normal(size=(30, 32))
    embeddings = (centres[labels] + 1.5 * generator.normal(size=(900, 32))).astype(np.float32)
    queries = LabelledEmbeddings(embeddings[:300], labels[:300])
    gallery = queries if one_set else LabelledEmbeddings(embeddings[300:], labels[300:])
    own_rows = np.arange(300) if one_set else None

    figures = average_scores(score_queries(queries, gallery, own_rows_Q=own_rows))

    names = ("precision_at_1", "mean_average_precision_at_r", "r_precision")
    calculator = accuracy_calculator.AccuracyCalculator(
        include=names, k="max_bin_count", knn_func=inference.CustomKNN(distances.CosineSimilarity())
    )
    parts = (queries.embeddings_ND, queries.labels_N, gallery.embeddings_ND, gallery.labels_N, one_set)
    expected = calculator.get_accuracy(*parts)
    found = [figures[name] for name in ("precision_at_1", "map_at_r", "r_precision")]
    assert found == pytest.approx([expected[name] for name in names], abs=1e-6)


def test_embeddings_that_are_not_finite_are_refused():
    gallery = LabelledEmbeddings(np.eye(2), np.array([0, 1]))
    queries = LabelledEmbeddings(np.array([[np.nan, 1.0]]), np.array([0]))

    with pytest.raises(ValueError, match="embeddings: NaN or infinity; the model has diverged"):
        score_queries(queries, gallery)


def test_parts_that_do_not_fit_are_refused():
    gallery = LabelledEmbeddings(np.eye(2), np.array([0, 1]))

    with pytest.raises(ValueError, match="queries: 2 embeddings with labels"):
        score_queries(LabelledEmbeddings(np.eye(2), np.array([0])), gallery)
    with pytest.raises(ValueError, match="differ in width"):
        score_queries(LabelledEmbeddings(np.eye(3), np.arange(3)), gallery)
    with pytest.raises(ValueError, match="own gallery row differ in labels"):
        score_queries(LabelledEmbeddings(np.eye(2), np.array([0, 0])), gallery, own_rows_Q=np.arange(2))
