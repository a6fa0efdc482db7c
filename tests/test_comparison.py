"""Two runs compared: figures by hand, rows that differ refused, the program's output and its page."""

import csv
import shutil

import numpy as np
import pyarrow as pa
import pytest
from conftest import run_program
from rich.console import Console

from hf_tasks.errors import DataError, UserError
from hf_tasks.report.comparison import RunPair, write_comparison
from hf_tasks.tasks.image_classification.compare import compare_tables
from hf_tasks.tasks.language_model.compare import compare_tables as compare_blocks
from hf_tasks.tasks.metric_learning.compare import compare_tables as compare_queries
from hf_tasks.tasks.siamese.compare import compare_tables as compare_pairs
from hf_tasks.workflow.comparison import compare_runs

RECIPE = """\
task: image-classification
output: runs/{name}
data: {{train: {{table: train.csv}}, validation: {{table: test.csv}}}}
model: {{name: resnet10t}}
training: {{learning_rate: {rate}}}
"""
TRUE = ["a", "a", "b", "b"]
FIRST, SECOND = ["a", "b", "a", "b"], ["a", "a", "b", "a"]


def _table(predicted, *, true=TRUE, probability=0.8):
    of_a = [probability if name == "a" else 1 - probability for name in predicted]
    return pa.table(
        {
            "path": [f"{number}.png" for number in range(len(predicted))],
            "true": true,
            "predicted": predicted,
            "probability": [probability] * len(predicted),
            "probability_a": of_a,
            "probability_b": [1 - value for value in of_a],
            "loss": [0.1 if said == name else 2.0 for said, name in zip(predicted, true, strict=True)],
        }
    )


def _write_run(folder, predicted, *, rate=0.1, order=None, true=TRUE, paths=None):
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(name=folder.name, rate=rate))
    table = _table(predicted, true=true).to_pydict()
    if paths is not None:
        table["path"] = paths
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table))
        writer.writeheader()
        writer.writerows(rows if order is None else [rows[place] for place in order])
    return folder


def _compare(first, second, tmp_path):
    console = Console(width=80, record=True, file=(tmp_path / "console.txt").open("w"))
    page = compare_runs(first, second, out=tmp_path / "page.html", console=console)
    return console.export_text(), page.read_text(encoding="utf-8")


def test_figures_and_examples_are_those_counted_by_hand():
    comparison = compare_tables(_table(FIRST), _table(SECOND))

    accuracy, loss = comparison.figures["accuracy"], comparison.figures["loss"]
    assert (accuracy.first, accuracy.second) == (0.5, 0.75)
    assert (loss.first, loss.second) == pytest.approx((1.05, 0.575))
    assert accuracy.low <= 0.25 <= accuracy.high
    # Of a: found 1 of 2 with one false, so F1 1/2; then 2 of 2 with one false, 4/5.
    assert (comparison.per_class["a"].first, comparison.per_class["a"].second) == pytest.approx((0.5, 0.8))
    assert comparison.was_right_N.tolist() == [True, False, False, True]
    assert comparison.is_right_N.tolist() == [True, True, True, False]


def test_several_labels_are_compared_with_their_rankings():
    true = ["a|b", "a", "", "b"]
    columns = {"path": list("wxyz"), "true": true, "predicted": true, "loss": [0.1] * 4}
    certain = {"probability_a": [0.9, 0.9, 0.1, 0.1], "probability_b": [0.9, 0.1, 0.1, 0.9]}
    poor = {**columns, "predicted": ["a|b", "", "", "a"], "probability_a": [0.9, 0.4, 0.1, 0.6]}

    comparison = compare_tables(
        pa.table({**poor, "probability_b": [0.9, 0.1, 0.1, 0.2]}), pa.table({**columns, **certain})
    )

    assert comparison.figures["accuracy"].second == 1
    # Of a: ranked 0.9 (there), 0.6 (not), 0.4 (there): (1 + 2/3) / 2; of b all in order.
    assert comparison.figures["average_precision"].first == pytest.approx((5 / 6 + 1) / 2)
    assert comparison.was_right_N.tolist() == [True, False, True, False]


def test_tables_without_every_probability_are_compared_without_rankings():
    tables = [_table(said).drop_columns(["probability_a", "probability_b"]) for said in (FIRST, SECOND)]

    comparison = compare_tables(*tables)

    assert set(comparison.figures) == {"accuracy", "f1_macro", "f1_micro", "f1_weighted", "loss"}


def test_the_terminal_shows_it_all_within_80_columns(tmp_path):
    first = _write_run(tmp_path / "one", FIRST)
    second = _write_run(tmp_path / "two", SECOND, rate=0.2)

    text, _ = _compare(first, second, tmp_path)

    assert max(map(len, text.splitlines())) <= 80
    assert "training.learning_rate" in text
    assert "output" not in text
    assert "fixed: 2\n  1.png  true a: b -> a\n  2.png  true b: a -> b\n" in text
    assert "broken: 1\n  3.png  true b: b -> a\n" in text


def test_the_page_shows_fixed_and_broken_even_without_the_data(tmp_path):
    first, second = _write_run(tmp_path / "one", FIRST), _write_run(tmp_path / "two", SECOND)

    _, page = _compare(first, second, tmp_path)

    assert "2 of 4 fixed, 1 broken" in page
    assert page.count('class="gone"') == 3
    assert 'data-examples="1 2"' in page
    assert 'data-examples="3"' in page


def test_rows_in_another_order_are_the_same_rows(tmp_path):
    first = _write_run(tmp_path / "one", FIRST)
    second = _write_run(tmp_path / "two", SECOND, order=[3, 1, 0, 2])

    text, _ = _compare(first, second, tmp_path)

    assert "  3.png  true b: b -> a\n" in text


def test_rows_that_only_one_run_has_are_refused(tmp_path):
    first = _write_run(tmp_path / "one", FIRST)
    second = _write_run(tmp_path / "two", SECOND, paths=["0.png", "1.png", "2.png", "new.png"])

    with pytest.raises(UserError, match=r"1 only in \S+one \(3\.png\); 1 only in \S+two \(new\.png\)"):
        _compare(first, second, tmp_path)


def test_rows_with_other_labels_are_refused(tmp_path):
    first = _write_run(tmp_path / "one", FIRST)
    second = _write_run(tmp_path / "two", SECOND, true=["a", "a", "b", "a"])

    with pytest.raises(UserError, match=r"1 labelled otherwise \(3\.png: 'b' in \S+one, 'a' in \S+two\)"):
        _compare(first, second, tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    first = _write_run(tmp_path / "one", FIRST)

    with pytest.raises(UserError, match="two: no finished run"):
        _compare(first, tmp_path / "two", tmp_path)


@pytest.mark.slow
def test_the_program_compares_real_runs_with_their_pictures(digits, digits_run, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    for copy in (run, other):
        shutil.copytree(digits_run, copy, ignore=shutil.ignore_patterns("checkpoints"))
    with (other / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wrong = np.flatnonzero([row["predicted"] == row["true"] for row in rows])[:2]
    for place in wrong:
        rows[place]["predicted"] = "0" if rows[place]["true"] != "0" else "1"
    with (other / "predictions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)

    done = run_program("compare", other, run, folder=digits)

    assert done.returncode == 0, done.stderr
    assert "fixed: 2" in done.stdout
    page = (run / "compared_with_other.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp") == 2


def test_pairs_are_compared_by_their_labels():
    table = {"text_1": list("abcd"), "text_2": list("efgh"), "label": [1.0, 1.0, 0.0, 0.0]}
    first = pa.table({**table, "score": [0.9, 0.2, 0.6, 0.1], "predicted": [1, 0, 1, 0]})
    second = pa.table({**table, "score": [0.9, 0.8, 0.6, 0.1], "predicted": [1, 1, 1, 0]})

    found = compare_pairs(first, second)

    accuracy, precision, recall = (found.figures[name] for name in ("accuracy", "precision", "recall"))
    assert (accuracy.first, accuracy.second) == (0.5, 0.75)
    assert (precision.first, precision.second) == pytest.approx((1 / 2, 2 / 3))
    assert (recall.first, recall.second) == (0.5, 1.0)
    assert found.was_right_N.tolist() == [True, False, False, True]
    assert found.is_right_N.tolist() == [True, True, False, True]


def test_blocks_of_text_are_compared_by_the_loss_of_each_token():
    first = pa.table({"document": [0, 1], "tokens": [10, 30], "loss": [2.0, 1.0]})
    second = pa.table({"document": [0, 1], "tokens": [10, 30], "loss": [1.0, 1.4]})

    found = compare_blocks(first, second)

    # (10 * 2 + 30 * 1) / 40, and (10 * 1 + 30 * 1.4) / 40.
    assert (found.figures["loss"].first, found.figures["loss"].second) == pytest.approx((1.25, 1.3))
    assert (~found.was_right_N & found.is_right_N).tolist() == [True, False]
    assert (found.was_right_N & ~found.is_right_N).tolist() == [False, True]
    assert found.gain_N.tolist() == pytest.approx([1.0, -0.4])
    with pytest.raises(DataError, match="other tokens of the same text"):
        compare_blocks(first, pa.table({"document": [0, 1], "tokens": [10, 29], "loss": [1.0, 1.0]}))
    with pytest.raises(DataError, match="no column 'document'"):
        compare_blocks(first.drop_columns("document"), second)


def test_the_interval_of_a_difference_of_losses_is_over_documents():
    generator = np.random.default_rng(0)
    documents, tokens = np.repeat(np.arange(6), 5), generator.integers(5, 16, 30)
    losses = generator.normal(2, 0.3, (2, 30))
    tables = [pa.table({"document": documents, "tokens": tokens, "loss": column}) for column in losses]

    found = compare_blocks(*tables).figures["loss"]

    generator, drawn = np.random.default_rng(0), []
    for _ in range(1000):
        chosen = generator.integers(0, 6, 6, dtype=np.int32)
        rows = np.concatenate([np.flatnonzero(documents == document) for document in chosen])
        drawn.append(np.average(losses[1][rows] - losses[0][rows], weights=tokens[rows]))
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=1e-9)


def test_one_document_does_not_tell_chance_from_progress(tmp_path):
    tables = [pa.table({"document": [0, 0], "tokens": [9, 9], "loss": [loss, 1.0]}) for loss in (2.0, 1.0)]
    comparison = compare_blocks(*tables)
    texts = {"text": ["a", "b"]}
    said = ["2", "1"], ["1", "1"]
    pair = RunPair("one", "two", "language-model", [], comparison, texts, None, *said, are_pictures=False)

    write_comparison(tmp_path / "page.html", pair, None)

    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Too few examples to tell" in page
    assert page.count(">unknown<") == 2


def test_queries_are_right_when_accepted_with_their_class_or_refused_as_unknown():
    table = {"true": list("abc"), "is_known": [True, True, False], "match_rank": [1, 2, None]}
    first = pa.table({**table, "predicted": list("aab"), "is_accepted": [True, True, True]})
    second = pa.table(
        {**table, "match_rank": [1, 1, None], "predicted": list("abb"), "is_accepted": [False, True, False]}
    )

    found = compare_queries(first, second)

    assert found.was_right_N.tolist() == [True, False, False]
    assert found.is_right_N.tolist() == [False, True, True]
    assert (found.figures["mrr"].first, found.figures["mrr"].second) == (0.75, 1.0)
    assert (found.figures["cmc_at_1"].first, found.figures["cmc_at_1"].second) == (0.5, 1.0)
