"""What a person sees of the program: results on stdout, errors on stderr, nothing of the libraries below."""

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# Codes that steer a terminal, as the signs that stand for them; and those that turn the writing round.
STEERING: dict[int, int] = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
TURNING = (*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
HARMLESS: dict[int, int | str] = {**STEERING, **dict.fromkeys(TURNING, "\N{REPLACEMENT CHARACTER}")}


class InertConsole(Console):
    """Shows names and paths of others without doing what control characters in them ask of a terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As Console.render; what rich itself wants of the terminal stands in segments of their own."""
        for segment in super().render(renderable, options):
            is_text = segment.control is None
            yield Segment(segment.text.translate(HARMLESS), segment.style) if is_text else segment


console = InertConsole(highlight=False, emoji=False)
errors = InertConsole(stderr=True, highlight=False, emoji=False)


def show_metrics(path: Path) -> None:
    """A table of the single figures in a metrics.json."""
    if not is_first_process():
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("metric", "value")
    for name, value in json.loads(path.read_text(encoding="utf-8")).items():
        if isinstance(value, float):
            table.add_row(Text(name), f"{value:.4f}")
    console.print(table)


def say(text: str) -> None:
    """Print a line, once for all processes."""
    if is_first_process():
        console.print(text, markup=False, soft_wrap=True)


def is_first_process() -> bool:
    """Whether this process speaks for its group."""
    return os.environ.get("RANK", "0") == "0"


class _ToConsole(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def show_own_messages() -> None:
    """Print what the program's own parts log, such as weights that are left out; libraries stay silent."""
    logger = logging.getLogger("hf_tasks")
    logger.setLevel(logging.INFO)
    logger.addHandler(_ToConsole())
    logger.propagate = False


def quiet_libraries() -> None:
    """Hide what the user cannot act on; a variable that is set already wins."""
    for name, value in {
        "DATASETS_VERBOSITY": "error",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_VERBOSITY": "error",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)
    # torchao, where it is installed, makes PyTorch say something that only torchao can mend.
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        # Bars of the Hub's client and of transformers, which would fill a log; on a terminal they are wanted.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
