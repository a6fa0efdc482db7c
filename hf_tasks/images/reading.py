"""Picture files read ahead in threads, while a network works on those before."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from hf_tasks.errors import DataError
from hf_tasks.images.decode import load_rgb
from hf_tasks.images.transform import ValidationTransform


class AnswerPictures(Protocol):
    """A network's answers for pictures, of which there may be none: columns, a value a picture."""

    def __call__(self, pictures: Sequence[Tensor]) -> Mapping[str, Sequence[Any]]: ...  # noqa: D102


def answered_files(
    paths: Sequence[Path], transform: ValidationTransform, answer: AnswerPictures, *, batch_size: int
) -> Iterator[dict[str, Any]]:
    """One row a file, in order: `path`, the answers, and the `error` of an unreadable one, else None.

    Args:
        paths: picture files.
        transform: prepares a picture for the network.
        answer: asked once for the readable pictures of each batch.
        batch_size: files per batch; the next one is read while a batch is answered.
    """
    batches = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    read = partial(_read, transform)
    with ThreadPoolExecutor() as pool:
        coming = [pool.submit(read, path) for path in batches[0]] if batches else []
        for number, batch in enumerate(batches):
            pictures = [future.result() for future in coming]
            following = batches[number + 1] if number + 1 < len(batches) else []
            coming = [pool.submit(read, path) for path in following]
            yield from _rows(batch, pictures, answer)


def _read(transform: ValidationTransform, path: Path) -> Tensor | DataError:
    try:
        return transform(load_rgb({"path": str(path), "bytes": None}))
    except DataError as error:
        return error


def _rows(
    paths: Sequence[Path], pictures: Sequence[Tensor | DataError], answer: AnswerPictures
) -> Iterator[dict[str, Any]]:
    answers = answer([picture for picture in pictures if isinstance(picture, Tensor)])
    position = 0
    for path, picture in zip(paths, pictures, strict=True):
        if isinstance(picture, DataError):
            yield {"path": str(path), **dict.fromkeys(answers), "error": str(picture)}
        else:
            found = {name: values[position] for name, values in answers.items()}
            yield {"path": str(path), **found, "error": None}
            position += 1
