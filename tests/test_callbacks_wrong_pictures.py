import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image

from hf_tasks.callbacks.predictions import save_table
from hf_tasks.callbacks.wrong_pictures import save_wrong, select_wrong
from hf_tasks.contract.answers import ClassificationAnswers


def answers_of(labels, probabilities_NC, class_names):
    probabilities_NC = np.array(probabilities_NC)
    labels = np.array(labels)
    is_multilabel = labels.ndim == 2
    return ClassificationAnswers(
        class_names,
        labels,
        probabilities_NC,
        (probabilities_NC >= 0.5).astype(np.int64) if is_multilabel else probabilities_NC.argmax(axis=1),
        losses_N=np.zeros(len(labels)),
        paths=[str(example) for example in range(len(labels))],
        load_picture=lambda example: Image.new("RGB", (200, 100)),
    )


def test_the_surest_mistakes_come_first():
    answers = answers_of([0, 1, 1, 0], [[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]], ("cat", "dog"))

    wrong = select_wrong(answers, limit=2)

    assert [(picture.example, picture.true, picture.predicted) for picture in wrong] == [
        (2, ("dog",), ("cat",)),
        (3, ("cat",), ("dog",)),
    ]
    assert [picture.probability for picture in wrong] == [0.8, 0.7]


def test_with_several_classes_the_worst_label_says_how_sure_a_mistake_was():
    labels = np.array([[1, 0], [0, 0], [1, 1]], np.float32)
    answers = answers_of(labels, [[0.6, 0.2], [0.1, 0.7], [0.9, 0.05]], ("cat", "dog"))

    wrong = select_wrong(answers, limit=5)

    assert [(picture.example, picture.true, picture.predicted) for picture in wrong] == [
        (2, ("cat", "dog"), ("cat",)),  # 0.95 sure that there is no dog
        (1, (), ("dog",)),
    ]


def test_pictures_lie_below_their_true_class_and_never_outside_the_folder(tmp_path):
    names = ("../cat", "dog")
    answers = answers_of([0, 0, 1], [[0.2, 0.8], [0.2, 0.8], [0.7, 0.3]], names)

    save_wrong(answers, tmp_path / "wrong", limit=5)

    cat = ".._x2f_cat"
    files = sorted(str(path.relative_to(tmp_path / "wrong")) for path in tmp_path.rglob("*.png"))
    assert files == [
        f"{cat}/dog_{cat}_0.8000.png",
        f"{cat}/dog_{cat}_0.8000_2.png",
        f"dog/{cat}_dog_0.7000.png",
    ]
    assert Image.open(tmp_path / "wrong" / files[0]).size == (200, 100)


@pytest.mark.parametrize("letter", ["a", "\N{CJK UNIFIED IDEOGRAPH-754C}", "\U00020000", "/", "\0"])
@pytest.mark.parametrize("length", [29, 30, 39, 40, 300])
def test_names_of_any_length_and_script_fit_a_file_name(tmp_path, letter, length):
    answers = answers_of([0] * 12, [[0.2, 0.8]] * 12, (letter * length, letter * (length - 1)))

    save_wrong(answers, tmp_path, limit=12)

    files = list(tmp_path.glob("*/*.png"))
    assert len(files) == 12
    assert max(len(file.name.encode()) for file in files) <= 255  # what Linux, macOS and Windows allow


def test_large_tables_are_written_as_parquet_too(tmp_path):
    table = pa.table({"path": ["a", "b", "c"], "loss": [0.1, 0.2, 0.3]})

    save_table(table, tmp_path / "large.csv", parquet_above=2)
    save_table(table, tmp_path / "small.csv", parquet_above=3)

    assert pyarrow.parquet.read_table(tmp_path / "large.parquet") == table
    assert pyarrow.csv.read_csv(tmp_path / "large.csv") == table
    assert not (tmp_path / "small.parquet").exists()
