"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

RecipeFile = Annotated[Path, typer.Argument(help="Recipe (YAML).")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="training.num_train_epochs=3")
]
RunFolder = Annotated[Path, typer.Argument(help="Folder that `train` has written, such as runs/flowers.")]
Encoding = Annotated[
    str | None,
    typer.Option(help="Encoding of tables and text files, such as cp1251; left out: utf-8."),
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Allow `metrics:` to fetch and run code of the Hub.")
]
