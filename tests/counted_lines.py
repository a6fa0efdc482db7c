"""Counts the lines that forked programs run with those of the tests, where `python -m slipcover` counts.

The server of `forked_program` imports it before anything of hf_tasks, so that what it forks is counted.
"""

import json
import os
from pathlib import Path

from slipcover import FileMatcher, ImportManager, Slipcover

FOLDER = os.environ.get("SLIPCOVER_COVERAGE_DIR")
PACKAGE = Path(__file__).parents[1] / "hf_tasks"

lines = Slipcover()
if FOLDER is not None:
    ImportManager(lines, FileMatcher([PACKAGE])).__enter__()


def write_counts() -> None:
    """Leave what this process has run where the plugin of slipcover gathers it."""
    if FOLDER is not None:
        counts = json.dumps(lines.get_coverage())
        Path(FOLDER, f"coverage-gw-{os.getpid()}.json").write_text(counts, encoding="utf-8")
