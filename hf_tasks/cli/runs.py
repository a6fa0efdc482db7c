"""Commands that take a finished run: evaluate, report, compare, predict, export, push."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hf_tasks.cli.options import Encoding, RunFolder, TrustRemoteCode
from hf_tasks.cli.screen import console, say, show_metrics
from hf_tasks.errors import UserError

if TYPE_CHECKING:
    from hf_tasks.data.sources import FolderSource, HubSource, TableSource


def evaluate(
    run: RunFolder,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Table, text file, class folders or saved data set; left out: the recipe's validation."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder that picture paths in the table start from.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of a data set that --data names, where it has several.")
    ] = None,
    encoding: Encoding = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the figures; left out: RUN/evaluation.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure a finished run again, on its validation rows or on other data."""
    from hf_tasks import workflow
    from hf_tasks.workflow.folders import require_finished, require_inputs

    require_finished(run)
    require_inputs([] if data is None else [data])
    artifacts = workflow.evaluate(
        run,
        _source(data, images=images, split=split, encoding=encoding),
        out=out or run / "evaluation",
        trust_remote_code=trust_remote_code,
        console=console,
    )
    show_metrics(artifacts.metrics)
    say(f"results: {artifacts.folder}  (metrics.json predictions.csv)")


def _source(
    data: Path | None, *, images: Path | None, split: str | None, encoding: str | None
) -> "FolderSource | HubSource | TableSource | None":
    from hf_tasks.data.hub import source_in
    from hf_tasks.data.sources import TableSource

    if images is not None and (data is None or data.is_dir()):
        raise UserError("--images: only a table given by --data has picture paths to start from there")
    if encoding is not None and (data is None or data.is_dir()):
        raise UserError("--encoding: only a table or text file given by --data has one")
    if split is not None and (data is None or data.is_file()):
        raise UserError("--split: only a folder of a data set given by --data has splits")
    if data is None:
        return None
    if data.is_dir():
        return source_in(data, split=split)
    folder = None if images is None else str(images)
    return TableSource(table=str(data), images=folder, encoding=encoding or "utf-8")


def report(
    run: RunFolder,
    resend: Annotated[
        bool, typer.Option("--resend", help="Draw nothing; send MLflow what it has not had.")
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Draw report.html of a finished run again, such as after its export."""
    if resend:
        from hf_tasks.workflow.tracking import resend as resend_run

        resend_run(run, say=say)
        return
    from hf_tasks import workflow
    from hf_tasks.workflow.folders import require_finished

    require_finished(run)
    artifacts = workflow.report(run, trust_remote_code=trust_remote_code, console=console)
    say(f"written: {artifacts.report}")


def compare(
    first: RunFolder,
    second: RunFolder,
    out: Annotated[
        Path | None, typer.Option(help="Page to write; left out: SECOND/compared_with_FIRST.html.")
    ] = None,
) -> None:
    """Say how the second run differs from the first on the same validation examples."""
    from hf_tasks.workflow.comparison import compare_runs

    say(f"written: {compare_runs(first, second, out=out, console=console)}")


def predict(
    run: RunFolder,
    inputs: Annotated[list[Path], typer.Argument(help="Files, or folders that are searched through.")],
    out: Annotated[Path, typer.Option(help="File to write: .csv, .jsonl or .parquet.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs per step.")] = 32,
    with_format: Annotated[
        str | None,
        typer.Option("--with", help="Answer with an exported file: onnx, onnx-int8, torchscript, ..."),
    ] = None,
    encoding: Encoding = None,
) -> None:
    """Answer for new files, one row each; exit code 2 if some could not be read."""
    from hf_tasks.workflow.folders import require_finished, require_inputs, require_table_ending

    require_finished(run)
    require_table_ending(out)
    require_inputs(inputs)
    from hf_tasks.workflow.prediction import predict_files

    done, broken = predict_files(
        run, inputs, out, batch_size=batch_size, with_format=with_format, encoding=encoding
    )
    say(f"{done} predicted: {out}")
    if broken:
        raise UserError(
            f"{broken} of {done + broken} inputs could not be answered; their rows in {out} hold the error"
        )


def export(
    run: RunFolder,
    formats: Annotated[
        list[str] | None,
        typer.Argument(
            help="onnx, onnx-fp16, onnx-int8, torchscript, torchao-int8, triton; left out: the recipe's."
        ),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="best, last, or the name of a checkpoint.")] = "best",
    backend: Annotated[
        str | None, typer.Option(help="What writes ONNX: auto, optimum or torch; left out: the recipe's.")
    ] = None,
) -> None:
    """Export a finished run and prove each file; exit code 2 if one answers differently."""
    from hf_tasks.workflow.folders import require_exportable

    require_exportable(run, formats or [], backend=backend)
    from hf_tasks.workflow.exporting import export_saved

    folder = export_saved(run, formats or [], checkpoint=checkpoint, backend=backend, console=console)
    say(f"exported: {folder}  (parity.json has the proof)")


def push(
    run: RunFolder,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Made if it is not there.")],
    public: Annotated[bool, typer.Option("--public", help="Show a new repository to everyone.")] = False,
) -> None:
    """Upload a finished run to the Hub: model, card, report and exports; run again if it breaks off."""
    from hf_tasks.workflow.publishing import push as push_run

    say(f"uploaded: {push_run(run, repository, private=False if public else None)}")
