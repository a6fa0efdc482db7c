"""The program `hf-tasks`; heavy libraries are imported by the command that needs them."""

import json
import logging
import os
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hf_tasks.errors import Interrupted, UserError

app = typer.Typer(
    help="From pictures or texts to a trained, measured and delivered model, with one readable recipe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
recipes_app = typer.Typer(
    help="List, show or copy the recipes that come with the program.", no_args_is_help=True
)
app.add_typer(recipes_app, name="recipes")

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

RunFolder = Annotated[Path, typer.Argument(help="Folder that `train` has written, such as runs/flowers.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Allow `metrics:` to fetch and run code of the Hub.")
]


def main() -> None:
    """Run the program: exit code 0 done, 2 the user can mend it, 1 a bug of ours."""
    _quiet_libraries()
    _show_own_messages()
    try:
        app()
    except UserError as error:
        if _is_first_process():
            errors.print("[bold red]error:[/]", end=" ")
            errors.print(str(error), markup=False, soft_wrap=True)
        sys.exit(2)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="training.num_train_epochs=3")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Stop after two steps of everything; keep nothing.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint, if any.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Train a model as the recipe says, measure it and save it."""
    from hf_tasks.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    from hf_tasks import workflow
    from hf_tasks.data.presence import require_present
    from hf_tasks.workflow.folders import finished_as_it_is, require_output

    if not check:
        require_output(loaded.output, may_exist=resume or overwrite)
    if resume and not overwrite and loaded.hub is None:
        finished = finished_as_it_is(
            loaded.output,
            loaded.text,
            training=loaded.training,
            is_exported=loaded.export is not None,
        )
        if finished is not None:
            _say(finished)
            return
    require_present({f"data.{key}": source for key, source in dict(loaded.settings)["data"]})

    if check:
        workflow.check(loaded, trust_remote_code=trust_remote_code, console=console)
        _say(f"check passed: {recipe} trains, evaluates and saves")
        return
    try:
        artifacts = workflow.run(
            loaded, resume=resume, overwrite=overwrite, trust_remote_code=trust_remote_code, console=console
        )
    except Interrupted as stop:
        _say(str(stop))
        raise typer.Exit(stop.exit_code) from None
    _show_metrics(artifacts.metrics)
    _say(f"results: {artifacts.folder}  (model/ metrics.json predictions.csv report.html)")


@app.command()
def check(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="training.num_train_epochs=3")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Look at every row, not at a sample.")] = False,
    fix: Annotated[
        Path | None,
        typer.Option(help="New folder for a cleaned copy of the data and its recipe; looks at every row."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Find what is wrong with recipe, data and machine, in a minute; exit code 2 if training would fail."""
    from hf_tasks.workflow.check_report import findings_table, report_json, summary_lines
    from hf_tasks.workflow.checking import check_recipe
    from hf_tasks.workflow.cleaned import require_new_folder, write_cleaned

    if fix is not None:
        require_new_folder(fix)
    with redirect_stdout(sys.stderr):
        report = check_recipe(
            recipe,
            overrides or (),
            everything=everything or fix is not None,
            trust_remote_code=trust_remote_code,
            console=errors,
        )
    if as_json:
        typer.echo(json.dumps(report_json(report), indent=2, ensure_ascii=False))
    else:
        if report.findings:
            console.print(findings_table(report))
        for line in summary_lines(report):
            _say(line)
    if fix is not None:
        counts = write_cleaned(report, fix)
        kept = ", ".join(f"{rows} of {of} rows of data.{section}" for section, (rows, of) in counts.items())
        errors.print(f"written: {fix}  ({kept}; left_out.csv says why)", markup=False, soft_wrap=True)
        errors.print(f"train on it: hf-tasks train {fix / 'recipe.yaml'}", markup=False, soft_wrap=True)
    if report.has_errors:
        sys.exit(2)


@app.command()
def prepare(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML) of a task with pictures.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="augmentation=hard")
    ] = None,
) -> None:
    """Decode pictures once, for `cache: true`; run again, it goes on and mends what is damaged."""
    from hf_tasks.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    from hf_tasks.workflow.preparing import prepare as prepare_pictures

    for line in prepare_pictures(loaded):
        _say(line)


@app.command()
def evaluate(
    run: RunFolder,
    data: Annotated[
        Path | None,
        typer.Option(help="Table or folder of classes to measure on; left out: the recipe's validation."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder that picture paths in the table start from.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the figures; left out: RUN/evaluation.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure a finished run again, on its validation rows or on other data."""
    from hf_tasks import workflow
    from hf_tasks.data.sources import FolderSource, TableSource
    from hf_tasks.workflow.folders import require_finished, require_inputs

    require_finished(run)
    require_inputs([] if data is None else [data])
    if images is not None and (data is None or data.is_dir()):
        raise UserError("--images: only a table given by --data has picture paths to start from there")
    source: FolderSource | TableSource | None = None
    if data is not None and data.is_dir():
        source = FolderSource(folder=str(data))
    elif data is not None:
        source = TableSource(table=str(data), images=None if images is None else str(images))
    artifacts = workflow.evaluate(
        run, source, out=out or run / "evaluation", trust_remote_code=trust_remote_code, console=console
    )
    _show_metrics(artifacts.metrics)
    _say(f"results: {artifacts.folder}  (metrics.json predictions.csv)")


@app.command()
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

        resend_run(run, say=_say)
        return
    from hf_tasks import workflow
    from hf_tasks.workflow.folders import require_finished

    require_finished(run)
    artifacts = workflow.report(run, trust_remote_code=trust_remote_code, console=console)
    _say(f"written: {artifacts.report}")


@app.command()
def compare(
    first: RunFolder,
    second: RunFolder,
    out: Annotated[
        Path | None, typer.Option(help="Page to write; left out: SECOND/compared_with_FIRST.html.")
    ] = None,
) -> None:
    """Say how the second run differs from the first on the same validation examples."""
    from hf_tasks.workflow.comparison import compare_runs

    _say(f"written: {compare_runs(first, second, out=out, console=console)}")


@app.command()
def predict(
    run: RunFolder,
    inputs: Annotated[list[Path], typer.Argument(help="Files, or folders that are searched through.")],
    out: Annotated[Path, typer.Option(help="File to write: .csv, .jsonl or .parquet.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs per step.")] = 32,
    with_format: Annotated[
        str | None,
        typer.Option("--with", help="Answer with an exported file: onnx, onnx-int8, torchscript, ..."),
    ] = None,
) -> None:
    """Answer for new files, one row each; exit code 2 if some could not be read."""
    from hf_tasks.workflow.folders import require_finished, require_inputs, require_table_ending

    require_finished(run)
    require_table_ending(out)
    require_inputs(inputs)
    from hf_tasks.workflow.prediction import predict_files

    done, broken = predict_files(run, inputs, out, batch_size=batch_size, with_format=with_format)
    _say(f"{done} predicted: {out}")
    if broken:
        raise UserError(
            f"{broken} of {done + broken} inputs could not be answered; their rows in {out} hold the error"
        )


@app.command()
def push(
    run: RunFolder,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Made if it is not there.")],
    public: Annotated[bool, typer.Option("--public", help="Show a new repository to everyone.")] = False,
) -> None:
    """Upload a finished run to the Hub: model, card, report and exports; run again if it breaks off."""
    from hf_tasks.workflow.publishing import push as push_run

    _say(f"uploaded: {push_run(run, repository, private=False if public else None)}")


@app.command()
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

    export_saved(run, formats or [], checkpoint=checkpoint, backend=backend, console=console)
    _say(f"exported: {run / 'export'}  (parity.json has the proof)")


@app.command()
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
) -> None:
    """Keep the embeddings of a gallery, tied to the model that made them."""
    from hf_tasks.workflow.index import add_to_index, remove_from_index

    if remove:
        _say(f"{remove_from_index(out, remove)} removed: {out}")
    if not gallery and not remove:
        raise UserError("index: nothing to do; name a gallery to add, or something to --remove")
    if gallery:
        added, broken = add_to_index(out, run, gallery, batch_size=batch_size)
        _say(f"{added} added: {out}")
        if broken:
            first = broken[0]["error"]
            raise UserError(f"{len(broken)} inputs could not be read and are left out, the first: {first}")


@app.command()
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
) -> None:
    """Look pictures or texts up in an index, one row each; exit code 2 if some could not be read."""
    from hf_tasks.workflow.index import search_index

    done, broken = search_index(
        folder, inputs, out, count=k, batch_size=batch_size, run_folder=run, use_faiss=faiss
    )
    _say(f"{done} searched: {out}")
    if broken:
        raise UserError(
            f"{broken} of {done + broken} inputs could not be read; their rows in {out} hold the error"
        )


@recipes_app.command("list")
def list_recipes() -> None:
    """Name the recipes, each with what it is for."""
    from rich.padding import Padding
    from rich.text import Text

    from hf_tasks.recipe.gallery import recipe_names

    for name, title in recipe_names().items():
        console.print(name, markup=False)
        console.print(Padding(Text(title), (0, 0, 0, 4), expand=False))


@recipes_app.command("show")
def show_recipe(name: Annotated[str, typer.Argument(help="A name of `recipes list`.")]) -> None:
    """Print a recipe."""
    from hf_tasks.recipe.gallery import recipe_path

    typer.echo(recipe_path(name).read_text(encoding="utf-8"), nl=False)


@recipes_app.command("copy")
def copy_recipe(
    name: Annotated[str, typer.Argument(help="A name of `recipes list`.")],
    target: Annotated[Path, typer.Argument(help="File or folder to write.")] = Path(),
) -> None:
    """Copy a recipe to make it yours, with the schema that editors check it by."""
    from hf_tasks.recipe.gallery import copy_recipe as copy

    _say(f"written: {copy(name, target)}")


@app.command()
def sample(
    name: Annotated[
        str, typer.Argument(help="digits, digits-multilabel, digits-retrieval, text-pairs or text.")
    ],
    folder: Annotated[Path, typer.Argument(help="Folder to write.")],
) -> None:
    """Write a small real data set in the layout that users have."""
    from hf_tasks.data.samples import SAMPLES

    if name not in SAMPLES:
        raise UserError(f"sample: no sample '{name}'; wanted one of {', '.join(SAMPLES)}")
    SAMPLES[name](folder)
    _say(f"written: {folder}")


@app.command()
def schema(task: Annotated[str, typer.Argument(help="Task, such as image-classification.")]) -> None:
    """Print the JSON Schema of a task's recipes, for editors."""
    from hf_tasks.recipe import recipe_schema

    typer.echo(json.dumps(recipe_schema(task), indent=2))


def _show_metrics(path: Path) -> None:
    if not _is_first_process():
        return
    from rich.table import Table

    table = Table("metric", "value")
    for name, value in json.loads(path.read_text(encoding="utf-8")).items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
    console.print(table)


def _say(text: str) -> None:
    if _is_first_process():
        console.print(text, markup=False, soft_wrap=True)


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


class _ToConsole(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _say(record.getMessage())


def _show_own_messages() -> None:
    """Print what the program's own parts log, such as weights that are left out; libraries stay silent."""
    logger = logging.getLogger("hf_tasks")
    logger.setLevel(logging.INFO)
    logger.addHandler(_ToConsole())
    logger.propagate = False


def _quiet_libraries() -> None:
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
