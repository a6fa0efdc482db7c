"""Neighbours, duplicates and clusters of texts, against plain sorting."""

import numpy as np
import pytest
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from hf_tasks.contract.answers import PairAnswers
from hf_tasks.report.pairs import cluster_section
from hf_tasks.tasks.siamese.analytics import analytics_tables
from hf_tasks.tasks.siamese.model import PairModel
from hf_tasks.tasks.siamese.settings import Analytics


@pytest.fixture
def model():
    return PairModel(encoder=None, threshold=0.99)


def test_duplicates_are_told_once_and_likeliest_first(model):
    angles = np.array([0.0, 0.01, 0.02, 1.0, 1.005, 3.0])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 3
    texts = [f"text {row}" for row in range(6)]

    table = analytics_tables(model, texts, embeddings, Analytics(neighbours=2, smallest_cluster=None))[
        "duplicates"
    ]

    found = [tuple(row) for row in zip(table["text_1"].to_pylist(), table["text_2"].to_pylist(), strict=True)]
    assert found[0] == ("text 3", "text 4")
    assert set(found[1:3]) == {("text 0", "text 1"), ("text 1", "text 2")}
    assert found[3:] == [("text 0", "text 2")]
    assert table["score"][0].as_py() == pytest.approx(np.cos(0.005), abs=1e-6)


def test_clusters_hold_what_lies_close_together(model):
    generator = np.random.default_rng(0)
    centres = np.repeat(np.eye(3) * 5, 20, axis=0)
    embeddings = centres + generator.normal(scale=0.05, size=centres.shape)
    texts = [f"{row // 20} {row}" for row in range(60)]

    table = analytics_tables(model, texts, embeddings, Analytics(smallest_cluster=5))["clusters"]

    told = zip(table["text"].to_pylist(), table["cluster"].to_pylist(), strict=True)
    pairs = {(text[0], cluster) for text, cluster in told if cluster >= 0}
    assert len(pairs) == 3
    assert len({cluster for _, cluster in pairs}) == 3
    answers = PairAnswers(texts, np.zeros((1, 2), int), embeddings, np.zeros(1), None, None, clusters=table)
    assert "3 clusters hold" in cluster_section(answers, count=2).lead


def test_clusters_of_neighbours_are_those_of_all_distances(model):
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(8, 16))
    embeddings = centres[generator.integers(8, size=400)] + generator.normal(scale=0.2, size=(400, 16))
    embeddings[:40] = embeddings[0]
    texts = [f"{row:03}" for row in range(400)]

    table = analytics_tables(model, texts, embeddings, Analytics())["clusters"].sort_by("text")

    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    wanted = HDBSCAN(min_cluster_size=5, algorithm="brute", copy=True).fit_predict(unit)
    assert adjusted_rand_score(table["cluster"].to_numpy(), wanted) == pytest.approx(1)


def test_parts_that_no_neighbours_join_are_clusters(model):
    embeddings = np.repeat(np.eye(3), 100, axis=0)
    texts = [f"{row:03}" for row in range(300)]

    table = analytics_tables(model, texts, embeddings, Analytics(neighbours=3))

    assert table["clusters"]["cluster"].value_counts().field("counts").to_pylist() == [100, 100, 100]
    assert len(table["neighbours"]) == 900


def test_distances_stand_beside_neighbours(model):
    embeddings = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 0.9]])

    table = analytics_tables(
        model, ["a", "b", "c"], embeddings, Analytics(neighbours=1, smallest_cluster=None)
    )

    assert table["neighbours"].select(["text", "place", "neighbour"]).to_pylist() == [
        {"text": "a", "place": 1, "neighbour": "c"},
        {"text": "b", "place": 1, "neighbour": "c"},
        {"text": "c", "place": 1, "neighbour": "a"},
    ]
    length = 1.81**0.5
    wanted = [1 - 1 / length, 1 - 0.9 / length, 1 - 1 / length]
    np.testing.assert_allclose(table["neighbours"]["distance"], wanted, atol=1e-6)
