"""Commands that take a recipe: train, check, prepare, tune."""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from hf_tasks.cli.options import Overrides, RecipeFile, TrustRemoteCode
from hf_tasks.cli.screen import console, errors, say, show_metrics
from hf_tasks.errors import Interrupted


def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
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
    from hf_tasks.workflow.folders import finished_as_it_is, require_output, require_same_place

    if resume:
        require_same_place(recipe, loaded.output)
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
            say(finished)
            return
    require_present({f"data.{key}": source for key, source in dict(loaded.settings)["data"]})

    if check:
        workflow.check(loaded, trust_remote_code=trust_remote_code, console=console)
        say(f"check passed: {recipe} trains, evaluates and saves")
        return
    try:
        artifacts = workflow.run(
            loaded, resume=resume, overwrite=overwrite, trust_remote_code=trust_remote_code, console=console
        )
    except Interrupted as stop:
        say(str(stop))
        raise typer.Exit(stop.exit_code) from None
    show_metrics(artifacts.metrics)
    say(f"results: {artifacts.folder}  (model/ metrics.json predictions.csv report.html)")


def check(
    recipe: RecipeFile,
    overrides: Overrides = None,
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
        typer.echo(json.dumps(report_json(report), indent=2))
    else:
        if report.findings:
            console.print(findings_table(report))
        for line in summary_lines(report):
            say(line)
    if fix is not None:
        counts = write_cleaned(report, fix)
        kept = ", ".join(f"{rows} of {of} rows of data.{section}" for section, (rows, of) in counts.items())
        errors.print(f"written: {fix}  ({kept}; left_out.csv says why)", markup=False, soft_wrap=True)
        errors.print(f"train on it: hf-tasks train {fix / 'recipe.yaml'}", markup=False, soft_wrap=True)
    if report.has_errors:
        sys.exit(2)


def prepare(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML) of a task with pictures.")],
    overrides: Overrides = None,
) -> None:
    """Decode pictures once, for `cache: true`; run again, it goes on and mends what is damaged."""
    from hf_tasks.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    from hf_tasks.workflow.preparing import prepare as prepare_pictures

    for line in prepare_pictures(loaded):
        say(line)


def tune(
    recipe: RecipeFile,
    overrides: Overrides = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Wanted in all: of earlier starts and of other processes too.")
    ] = 20,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="HF_TASKS_STORAGE",
            help="Database that several machines share: postgresql+psycopg2://USER@HOST/NAME.",
        ),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Search the values that `tune:` names; start it again to go on, several times to share the work."""
    from hf_tasks.recipe import load_recipe
    from hf_tasks.recipe.search import require_search

    loaded = load_recipe(recipe, overrides or ())
    if loaded.tune is not None:
        require_search(recipe, overrides or (), loaded.tune)
    from hf_tasks.data.presence import require_present

    require_present({f"data.{key}": source for key, source in dict(loaded.settings)["data"]})
    from hf_tasks.workflow.tuning import tune as tune_recipe

    try:
        best = tune_recipe(
            loaded, trials=trials, storage=storage, trust_remote_code=trust_remote_code, console=console
        )
    except Interrupted as stop:
        say(f"{stop.args[0].partition('; ')[0]}; go on with the same command")
        raise typer.Exit(stop.exit_code) from None
    say(f"best recipe: {best}")
