"""Commands that keep embeddings and look things up among them: index, search."""

from pathlib import Path
from typing import Annotated

import typer

from hf_tasks.cli.options import Encoding
from hf_tasks.cli.screen import say
from hf_tasks.errors import UserError


def index(
    run: Annotated[Path, typer.Argument(help="Folder of a metric-learning or siamese run.")],
    gallery: Annotated[
        list[Path] | None,
        typer.Argument(help="Pictures or files of texts, or folders of them, to put into it."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the index; one that is there is added to.")] = Path(
        "index"
    ),
    remove: Annotated[
        list[str] | None,
        typer.Option(help="Path, text or class to take out first; may be given several times."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs per step.")] = 32,
    encoding: Encoding = None,
) -> None:
    """Keep the embeddings of a gallery, tied to the model that made them."""
    from hf_tasks.workflow.index import add_to_index, remove_from_index

    if remove:
        say(f"{remove_from_index(out, remove)} removed: {out}")
    if not gallery and not remove:
        raise UserError("index: nothing to do; name a gallery to add, or something to --remove")
    if gallery:
        added, broken = add_to_index(out, run, gallery, batch_size=batch_size, encoding=encoding)
        say(f"{added} added: {out}")
        if broken:
            first = broken[0]["error"]
            raise UserError(f"{len(broken)} inputs could not be read and are left out, the first: {first}")


def search(
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder that `index` has written.")],
    inputs: Annotated[list[Path], typer.Argument(help="Pictures or files of texts, or folders of them.")],
    out: Annotated[Path, typer.Option(help="File to write: .csv, .jsonl or .parquet.")],
    k: Annotated[int, typer.Option(min=1, help="Neighbours of each input.")] = 5,
    run: Annotated[
        Path | None, typer.Option(help="Where the run lies, if it moved since the index was written.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs per step.")] = 32,
    faiss: Annotated[
        bool, typer.Option("--faiss", help="Faster in large indexes, not exact; says how near it comes.")
    ] = False,
    encoding: Encoding = None,
) -> None:
    """Look pictures or texts up in an index, one row each; exit code 2 if some could not be read."""
    from hf_tasks.workflow.index import open_for_search, search_index

    done, broken = search_index(
        open_for_search(folder, run),
        inputs,
        out,
        count=k,
        batch_size=batch_size,
        use_faiss=faiss,
        encoding=encoding,
    )
    say(f"{done} searched: {out}")
    if broken:
        raise UserError(
            f"{broken} of {done + broken} inputs could not be read; their rows in {out} hold the error"
        )
