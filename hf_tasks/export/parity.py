"""What each exported file measured, as parity.json, and as a table for people."""

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from hf_tasks.errors import ExportError
from hf_tasks.export.latency import Latency
from hf_tasks.export.writing import Writing
from hf_tasks.files import write_text

PARITY = "parity.json"
NEEDED = {"format", "file", "passed", "metric", "largest_difference"}


@dataclass(frozen=True)
class Metric:
    """The task's own metric, by PyTorch and by the file."""

    name: str
    before: float
    after: float
    lower_is_better: bool = False

    @property
    def loss(self) -> float:
        """How much is lost; negative where the file does better."""
        return self.after - self.before if self.lower_is_better else self.before - self.after


@dataclass(frozen=True)
class Record:
    """One file and its proof."""

    format: str
    """Such as onnx-int8; a complete graph's ends in -end-to-end."""
    file: str
    """From the run folder."""
    passed: bool
    reason: str | None
    examples: int
    largest_difference: float
    mean_difference: float
    agreement: float
    metric: Metric
    latency_ms: Mapping[int, Latency] = field(default_factory=dict)
    bytes: int = 0
    sha256: str = ""
    """Of the file that was proved, and of what lies beside it with its name."""
    writing: Writing | None = None
    """Of a language model."""
    chosen: bool = False

    def to_json(self) -> dict[str, Any]:
        """JSON values; the keys of `latency_ms` are batch_1 and batch_32; what is not finite is null."""
        values = asdict(self)
        values["largest_difference"] = _finite(self.largest_difference)
        values["mean_difference"] = _finite(self.mean_difference)
        values["metric"]["after"] = _finite(self.metric.after)
        values["latency_ms"] = {f"batch_{size}": asdict(found) for size, found in self.latency_ms.items()}
        if self.writing is None:
            del values["writing"]
        return values


@dataclass(frozen=True)
class Parity:
    """All records of an export."""

    records: tuple[Record, ...]
    of_rows: int
    """Validation rows that the examples were drawn from."""
    reference_latency_ms: Mapping[int, Latency] = field(default_factory=dict)
    """Of PyTorch, for comparison."""
    impossible: tuple[str, ...] = ()
    """A line for each format that could not be made."""

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each file that was refused."""
        return tuple(f"{record.format}: {record.reason}" for record in self.records if not record.passed)

    def choose(self, chosen: Record) -> "Parity":
        """The same with one record marked."""
        marked = (replace(record, chosen=record == chosen) for record in self.records)
        return replace(self, records=tuple(marked))

    def write(self, path: Path, *, anew: Collection[str] = ()) -> None:
        """Write parity.json; records of formats that were not exported anew are kept, but chosen no more.

        Args:
            path: the file.
            anew: formats whose earlier files are gone, whether or not there are records of new ones.
        """
        gone = {*anew, *(_folder_of(record.format, record.file) for record in self.records)}
        kept = [
            {**item, "chosen": False}
            for item in read_records(path)
            if _folder_of(item["format"], item["file"]) not in gone
        ]
        values = {
            "formats": [record.to_json() for record in self.records] + kept,
            "validation_rows": self.of_rows,
            "reference_latency_ms": {f"batch_{n}": asdict(t) for n, t in self.reference_latency_ms.items()},
        }
        write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def parity_table(parity: Parity) -> Table:
    """The proof as a table for a terminal of 80 columns; models of a Triton repository only where refused."""
    shown = [record for record in parity.records if record.format != "triton" or not record.passed]
    metric = shown[0].metric
    reference = " / ".join(f"{latency.median:.1f}" for latency in parity.reference_latency_ms.values())
    table = Table(
        Column("format", no_wrap=True),
        "proof",
        "diff",
        "agree",
        "metric",
        "ms (1)",
        "ms (32)",
        "MB",
        box=SIMPLE_HEAD,
        padding=0,
        caption=f"{shown[0].examples} of {parity.of_rows} validation examples; "
        f"PyTorch: {metric.name} {metric.before:.4f}, {reference} ms",
    )
    for record in shown:
        table.add_row(
            f"{record.format} *" if record.chosen else record.format,
            "[green]good[/]" if record.passed else "[bold red]refused[/]",
            f"{record.largest_difference:.1e}",
            "100%" if record.agreement == 1 else f"{min(record.agreement, 0.9999):.2%}",
            f"{record.metric.after:.4f}",
            *(f"{latency.median:.1f}" for latency in record.latency_ms.values()),
            f"{record.bytes / 1e6:.1f}",
        )
    return table


def parts_of(file: Path) -> list[Path]:
    """An exported file, and the weights of a large one beside it, whose name begins with its own."""
    return sorted(file.parent.glob(f"{file.name}*"))


def sha256_of(file: Path) -> str:
    """Fingerprint of an exported file with all its parts."""
    digest = hashlib.sha256()
    for part in parts_of(file):
        with part.open("rb") as opened:
            while block := opened.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _folder_of(format_name: str, file: str) -> str:
    """The folder of a record's format, which its complete graph and its further parts share."""
    return format_name if format_name == "triton" else Path(file).parent.name


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a parity.json; none where there is no such file.

    Raises:
        ExportError: the file is not what Parity.write leaves.
    """
    if not path.is_file():
        return []
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        values = None
    records: Any = values.get("formats") if isinstance(values, dict) else None
    if isinstance(records, list) and all(isinstance(item, dict) and set(item) >= NEEDED for item in records):
        return records
    raise ExportError(f"{path}: no proof of ours, found other text; delete it and export again")
