"""The table of per-example answers on disk: CSV always, Parquet too where CSV gets slow to read."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from hf_tasks.files import written_aside

PARQUET_ABOVE_ROWS = 100_000


def save_table(table: pa.Table, path: Path, *, parquet_above: int = PARQUET_ABOVE_ROWS) -> None:
    """Write a table as CSV, and beside it as `.parquet` when it has more rows than `parquet_above`."""
    with written_aside(path) as aside:
        pyarrow.csv.write_csv(table, aside)
    parquet = path.with_suffix(".parquet")
    if table.num_rows > parquet_above:
        with written_aside(parquet) as aside:
            pyarrow.parquet.write_table(table, aside)
    else:
        parquet.unlink(missing_ok=True)
