"""Writes the files of every format that is asked for; whether they are any good is for prove.py to say."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hf_tasks.contract.exports import ExportPlan
from hf_tasks.errors import ExportError, UserError
from hf_tasks.export.networks import PLAIN_FILES

if TYPE_CHECKING:
    from hf_tasks.export.onnx import Backend

END_TO_END = "-end-to-end"
FORMATS = (*PLAIN_FILES, "triton")


@dataclass(frozen=True)
class ExportedFile:
    """One file of a format, not proved yet."""

    format: str
    """onnx, onnx-fp16, onnx-int8, torchscript or torchao-int8."""
    path: Path
    is_end_to_end: bool = False
    part: str = ""
    """Name of a further graph of the plan."""

    @property
    def name(self) -> str:
        """Format as records call it."""
        if self.part:
            return f"{self.format}-{self.part}"
        return f"{self.format}{END_TO_END}" if self.is_end_to_end else self.format


def plain_formats(formats: Sequence[str]) -> list[str]:
    """The formats without triton, which packs the others; alone, it packs onnx."""
    return [name for name in formats if name != "triton"] or ["onnx"]


def require_formats(
    formats: Sequence[str], *, refused: Mapping[str, str], backend: "Backend" = "auto"
) -> None:
    """Check that every format can be made here, before anything is written.

    Args:
        formats: names of formats.
        refused: those that the model cannot keep, each with the reason.
        backend: of ONNX.

    Raises:
        ExportError: a format that the task cannot keep, or a package that is missing.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ExportError(f"export: no format '{unknown[0]}'; wanted some of {', '.join(FORMATS)}")
    for name in (*formats, *plain_formats(formats)):
        if name in refused:
            raise ExportError(f"export: this model cannot be exported as {name}: {refused[name]}")
    if "torchao-int8" in formats:
        from hf_tasks.export.torchao import require_torchao

        require_torchao()
    if any(name.startswith("onnx") for name in plain_formats(formats)):
        missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
        if missing:
            raise ExportError(
                f"export: {formats[0]} needs the package {' and '.join(missing)}; install it with "
                "pip install 'hf_tasks[onnx]'"
            )
        from hf_tasks.export.onnx import choose_backend

        choose_backend(backend)


def metadata_texts(plan: ExportPlan, facts: Mapping[str, str]) -> dict[str, str]:
    """What a file carries of its plan and its run, as texts: JSON, but for what is a text already."""
    values = {"labels": list(plan.labels), **plan.facts, **facts}
    return {
        f"hf_tasks.{name}": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
    }


def write_files(
    plan: ExportPlan,
    format_name: str,
    folder: Path,
    *,
    metadata: dict[str, str],
    backend: "Backend" = "auto",
    has_free_size: bool = False,
    part: str = "",
) -> list[ExportedFile]:
    """Write one format: its plain file, and its complete graph where the plan has pictures.

    Args:
        plan: what is exported.
        format_name: onnx, onnx-fp16, onnx-int8, torchscript or torchao-int8.
        folder: of all formats; the files go to `folder/FORMAT`.
        metadata: texts kept in every file.
        backend: of ONNX.
        has_free_size: free the picture's height and width too.
        part: name of the graph, where the plan is a further one.

    Raises:
        ExportError: the format cannot express the model.
    """
    plain = _file(folder, format_name, part)
    plain.parent.mkdir(parents=True, exist_ok=True)
    if format_name == "torchscript":
        complete = _write_torchscript(plan, plain, metadata)
    elif format_name == "torchao-int8":
        from hf_tasks.export.torchao import write_torchao

        write_torchao(plan, plain, metadata=metadata)
        complete = None
    else:
        base = _file(folder, "onnx", part)
        if not base.is_file():
            base.parent.mkdir(parents=True, exist_ok=True)
            from hf_tasks.export.onnx import write_onnx

            write_onnx(plan, base, backend=backend, has_free_size=has_free_size)
        complete = _write_onnx(plan, plain, base, metadata=metadata)
        plan.save_beside(plain.parent)
    files = [ExportedFile(format_name, plain, part=part)]
    return files if complete is None else [*files, ExportedFile(format_name, complete, is_end_to_end=True)]


def _file(folder: Path, format_name: str, part: str) -> Path:
    file = folder / format_name / PLAIN_FILES[format_name]
    return file.with_stem(part) if part else file


def _write_torchscript(plan: ExportPlan, plain: Path, metadata: dict[str, str]) -> Path | None:
    from hf_tasks.export.torchscript import write_end_to_end_torchscript, write_torchscript

    traced = write_torchscript(plan, plain, metadata=metadata)
    if plan.pictures is None:
        return None
    complete = plain.with_name("end_to_end.pt")
    write_end_to_end_torchscript(traced, plan.pictures, complete, metadata=metadata)
    return complete


def _write_onnx(plan: ExportPlan, plain: Path, base: Path, *, metadata: dict[str, str]) -> Path | None:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    from hf_tasks.export.end_to_end_onnx import write_end_to_end
    from hf_tasks.export.onnx import add_metadata
    from hf_tasks.export.onnx_network import BROKEN
    from hf_tasks.export.quantize import write_fp16, write_int8

    name = plain.parent.name
    try:
        if name == "onnx-int8":
            write_int8(plan, base, plain)
        elif name == "onnx-fp16":
            write_fp16(base, plain)
    except UserError:
        raise
    except DecodeError as error:  # onnxruntime does not look whether what it writes fits on the disk
        raise ExportError(
            f"export: a file of {name} was cut off in {plain.parent}; make room there and export again"
        ) from error
    except (RuntimeError, ValueError, *BROKEN) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"export: this model cannot be written as {name}: {reason[0]}") from error
    add_metadata(plain, metadata)
    if plan.pictures is None:
        return None
    complete = plain.with_name("end_to_end.onnx")
    write_end_to_end(plain, complete, plan.pictures, metadata=metadata)
    return complete
