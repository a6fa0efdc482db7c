"""Small real data sets that anyone can write to a folder, in the layouts that people have."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from hf_tasks.data.sample_folder import claim_folder
from hf_tasks.data.text_samples import write_text, write_text_pairs

SPLIT_SEED = 0
TEST_SHARE = 0.2
# Enlarged (bicubic) from 8: easy on the eye, and large enough for networks that halve a picture five times.
SIDE_PIXELS = 32

# The label follows the digit, not its drawing. Most writers here leave the 4 open, so it counts as open.
DIGIT_LABELS = {"even": {0, 2, 4, 6, 8}, "prime": {2, 3, 5, 7}, "has_a_loop": {0, 6, 8, 9}}
TRAINED_DIGITS = range(5)

SOURCE = """\
Written by: hf-tasks sample {name}
1,797 handwritten digits, 8 x 8 pixels, enlarged to 32 x 32; the copy that scikit-learn ships.
E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, licence CC BY 4.0.
"""


def write_digits(folder: Path) -> None:
    """Write scikit-learn's digits as pictures in class folders, and as tables of the same files.

    `train/CLASS/NNNN.png` and `test/CLASS/NNNN.png` (8-bit gray, 32 x 32; NNNN is the row in the original),
    with `train_metadata.csv` and `test_metadata.csv` (`image_path,label`; paths relative to `folder`). A
    fifth of each digit is in test, drawn with a fixed seed: two runs write the same bytes.

    Raises:
        UserError: `folder` is a file, or holds anything but an earlier run's output.
    """
    claim_folder(folder, "digits", SOURCE.format(name="digits"))
    rows: dict[str, list[list[str]]] = {"train": [], "test": []}
    for row, split, digit, png in _digits():
        path = Path(split, str(digit), f"{row:04d}.png")
        _write_file(folder / path, png)
        rows[split].append([path.as_posix(), str(digit)])
    _write_tables(folder, ["image_path", "label"], rows)


def write_digits_multilabel(folder: Path) -> None:
    """Write the same pictures with three yes-or-no labels each: even, prime, has_a_loop.

    `images/NNNN.png` with `train_metadata.csv` and `test_metadata.csv` (`image_path,even,prime,has_a_loop`,
    0 or 1; paths relative to `folder`); the split is that of `write_digits`.

    Raises:
        UserError: `folder` is a file, or holds anything but an earlier run's output.
    """
    claim_folder(folder, "digits-multilabel", SOURCE.format(name="digits-multilabel"))
    rows: dict[str, list[list[str]]] = {"train": [], "test": []}
    for row, split, digit, png in _digits():
        path = Path("images", f"{row:04d}.png")
        _write_file(folder / path, png)
        labels = [str(int(digit in digits)) for digits in DIGIT_LABELS.values()]
        rows[split].append([path.as_posix(), *labels])
    _write_tables(folder, ["image_path", *DIGIT_LABELS], rows)


def write_digits_retrieval(folder: Path) -> None:
    """Write the same pictures for looking up digits that were not trained on.

    `train/CLASS/NNNN.png` holds the digits 0 to 4; of 5 to 9, `base/CLASS/NNNN.png` is the gallery and
    `val/CLASS/NNNN.png` the queries, a fifth of each, drawn with the fixed seed of `write_digits`.

    Raises:
        UserError: `folder` is a file, or holds anything but an earlier run's output.
    """
    claim_folder(folder, "digits-retrieval", SOURCE.format(name="digits-retrieval"))
    for row, split, digit, png in _digits():
        part = "train" if digit in TRAINED_DIGITS else "base" if split == "train" else "val"
        _write_file(folder / part / str(digit) / f"{row:04d}.png", png)


SAMPLES: dict[str, Callable[[Path], None]] = {
    "digits": write_digits,
    "digits-multilabel": write_digits_multilabel,
    "digits-retrieval": write_digits_retrieval,
    "text-pairs": write_text_pairs,
    "text": write_text,
}


def _digits() -> Iterator[tuple[int, str, int, bytes]]:
    """Row, split (train or test), digit and PNG file of every picture."""
    # Here, because the command line names the samples without scikit-learn's second of import.
    from io import BytesIO

    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    _, test_rows = train_test_split(
        range(len(digits.target)), test_size=TEST_SHARE, stratify=digits.target, random_state=SPLIT_SEED
    )
    is_test = set(test_rows)
    brightest = 16
    for row, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        image = Image.fromarray((pixels * (255 / brightest)).round().astype("uint8"))
        png = BytesIO()
        image.resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BICUBIC).save(png, format="PNG")
        yield row, "test" if row in is_test else "train", int(digit), png.getvalue()


def _write_tables(folder: Path, columns: list[str], rows: dict[str, list[list[str]]]) -> None:
    for split, lines in rows.items():
        with (folder / f"{split}_metadata.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([columns, *lines])


def _write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
