"""Answers of a saved model for new files, streamed to a csv, jsonl or parquet file."""

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
from torch import nn

from hf_tasks.artifacts import Artifacts
from hf_tasks.contract.exports import Network
from hf_tasks.contract.task import Task
from hf_tasks.data.inspect import slow_progress
from hf_tasks.errors import UserError
from hf_tasks.export.networks import open_export
from hf_tasks.files import written_aside
from hf_tasks.recipe import load_recipe
from hf_tasks.registry import load_task
from hf_tasks.workflow.folders import require_finished, require_table_ending
from hf_tasks.workflow.opening import explained_model

Row = Mapping[str, Any]


def predict_files(
    run_folder: Path,
    inputs: list[Path],
    out: Path,
    *,
    batch_size: int,
    with_format: str | None = None,
    encoding: str | None = None,
) -> tuple[int, int]:
    """Write a row per example and count those that were answered and those that could not be.

    Args:
        run_folder: a finished run.
        inputs: files, or folders that are searched through.
        out: .csv, .jsonl or .parquet file; written aside and renamed at the end.
        batch_size: files per step of the model.
        with_format: the exported file that answers, such as onnx-int8; None for the saved model.
        encoding: of tables and text files; None for UTF-8.

    Raises:
        UserError: no finished run, no files, an ending that is not known, or no proved file of the format.
    """
    writer = open_writer(out)
    paths, answers = open_predictor(
        run_folder, inputs, batch_size=batch_size, with_format=with_format, encoding=encoding
    )
    expected = len(paths) if task_of_run(run_folder).examples_per_file == "one" else None
    count = broken = 0
    with writer as write, slow_progress("Predicting", expected) as advance:
        for row in answers:
            count += 1
            broken += row["error"] is not None
            write(row)
            advance(1)
    return count - broken, broken


def open_writer(out: Path) -> AbstractContextManager[Callable[[Row], None]]:
    """What writes rows to a .csv, .jsonl or .parquet file, aside first.

    Raises:
        UserError: another ending.
    """
    require_table_ending(out)
    return WRITERS[out.suffix.lower()](out)


def open_predictor(
    run_folder: Path,
    inputs: list[Path],
    *,
    batch_size: int,
    with_format: str | None = None,
    encoding: str | None = None,
) -> tuple[list[Path], Iterator[Row]]:
    """The files that are meant, and the answers for them, in order, as they are asked for.

    Args:
        run_folder: a finished run.
        inputs: files, or folders that are searched through.
        batch_size: files per step of the model.
        with_format: the exported file that answers, such as onnx-int8; None for the saved model.
        encoding: of tables and text files; None for UTF-8.

    Raises:
        UserError: no finished run, no files, an encoding for pictures, or no proved file of the format.
    """
    task, artifacts = task_of_run(run_folder), Artifacts(run_folder)
    paths = list(find_files(inputs, task.file_suffixes))
    reading = how_to_read(encoding, holds_texts=task.examples_per_file == "many")
    exported: list[Network] = []
    if with_format is not None:

        def build_model() -> nn.Module:
            return task.exported_module(task.load_model(artifacts.model))

        exported = [open_export(artifacts.exports, with_format, build_model)]
    with explained_model(artifacts.model):
        predictor = task.load_predictor(artifacts.model, *exported, **reading)
    return paths, map(with_names_in_utf8, predictor(paths, batch_size=batch_size))


def how_to_read(encoding: str | None, *, holds_texts: bool) -> dict[str, str]:
    """What a predictor is told of the files beside their paths.

    Raises:
        UserError: an encoding for files that hold no texts.
    """
    if encoding is not None and not holds_texts:
        raise UserError("--encoding: pictures have none; leave it out")
    return {} if encoding is None else {"encoding": encoding}


def task_of_run(run_folder: Path) -> Task:
    """The task that a finished run is of.

    Raises:
        UserError: no finished run.
    """
    artifacts = Artifacts(run_folder)
    require_finished(run_folder)
    return load_task(load_recipe(artifacts.recipe).task)


def find_files(inputs: list[Path], suffixes: frozenset[str]) -> Iterator[Path]:
    """The files that are meant: those given, and of folders all below them with one of the endings.

    Raises:
        UserError: a file or folder that is not there, or a folder without such files.
    """
    for path in inputs:
        if path.is_dir():
            files = (file for file in path.rglob("*") if not file.name.startswith("."))
            found = sorted(file for file in files if file.suffix.lower() in suffixes)
            if not found:
                raise UserError(f"{path}: no files here that end in {', '.join(sorted(suffixes))}")
            yield from found
        elif path.exists():
            yield path
        else:
            raise UserError(f"{path}: no such file or folder")


def with_names_in_utf8(row: Row) -> Row:
    r"""The row, with what is not UTF-8 in file names written out, as `\xff`."""
    names = {key: row[key] for key in ("path", "file", "error") if row.get(key) is not None}
    return {
        **row,
        **{key: os.fsencode(name).decode(errors="backslashreplace") for key, name in names.items()},
    }


@contextmanager
def _csv_writer(path: Path) -> Iterator[Callable[[Row], None]]:
    with written_aside(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")

        def write(row: Row) -> None:
            if file.tell() == 0:
                writer.writerow(row)
            writer.writerow(row.values())

        yield write


@contextmanager
def _jsonl_writer(path: Path) -> Iterator[Callable[[Row], None]]:
    with written_aside(path) as part, part.open("w", encoding="utf-8") as file:
        yield lambda row: print(json.dumps(row, ensure_ascii=False), file=file)


@contextmanager
def _parquet_writer(path: Path) -> Iterator[Callable[[Row], None]]:
    """Goes through lines of JSON, as the type of a column is known for sure only at the end.

    Texts stay texts, even those that look like dates.
    """
    lines = path.with_name(f".{path.name}.jsonl")
    columns: dict[str, pa.DataType | None] = {}
    try:
        with _jsonl_writer(lines) as write_line:

            def write(row: Row) -> None:
                for name, value in row.items():
                    columns[name] = pa.string() if isinstance(value, str) else columns.get(name)
                write_line(row)

            yield write
        texts = pa.schema([(name, kind) for name, kind in columns.items() if kind is not None])
        options = pyarrow.json.ParseOptions(explicit_schema=texts)
        with written_aside(path) as part:
            pq.write_table(pyarrow.json.read_json(lines, parse_options=options).select(list(columns)), part)
    finally:
        lines.unlink(missing_ok=True)


WRITERS = {".csv": _csv_writer, ".jsonl": _jsonl_writer, ".parquet": _parquet_writer}
