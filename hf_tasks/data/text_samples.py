"""The samples of texts: pairs of docstring parts in tables, and docstrings as plain text."""

import csv
from pathlib import Path

from hf_tasks.data.docstrings import docstring_pairs, is_held_out, read_docstrings, source_names
from hf_tasks.data.sample_folder import claim_folder

TEST_SHARE = 0.2
# A tenth is enough to measure bits per byte to the third digit.
HELD_OUT_TEXT = 0.1
SOURCE = """\
Written by: hf-tasks sample {name}
Docstrings of {sources}; each under the licence of its package.
"""


def write_text_pairs(folder: Path) -> None:
    """Write `train.csv` and `test.csv`: summary lines of functions, each with two bodies of its module.

    Columns `text_1` (summary), `text_2` (body) and `label`: 1 where both are of one function, else 0. The
    functions of the test table, a fifth, are none of the training table. The texts are those of this
    machine's packages: two runs write the same bytes while no package changes.

    Raises:
        UserError: `folder` is a file, or holds anything but an earlier run's output.
    """
    claim_folder(folder, "text-pairs", SOURCE.format(name="text-pairs", sources=source_names()))
    train, test = docstring_pairs(read_docstrings(), held_out=TEST_SHARE)
    for name, pairs in (("train", train), ("test", test)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("text_1", "text_2", "label"), *pairs])


def write_text(folder: Path) -> None:
    """Write docstrings, a line each, as `train.txt` and, a tenth of them, `test.txt`.

    Docstrings that stand twice are written once.

    Raises:
        UserError: `folder` is a file, or holds anything but an earlier run's output.
    """
    claim_folder(folder, "text", SOURCE.format(name="text", sources=source_names()))
    lines = dict.fromkeys(f"{part.summary} {part.body}".strip() for part in read_docstrings())
    for name, held_out in (("train", False), ("test", True)):
        with (folder / f"{name}.txt").open("w", encoding="utf-8", newline="\n") as file:
            for line in lines:
                if is_held_out(line, HELD_OUT_TEXT) == held_out:
                    print(line, file=file)
