"""The list of all commands, in the order of `--help`, and what their errors become."""

import errno
import sys
from typing import NoReturn

import typer

from hf_tasks.cli import indexing, material, runs, training
from hf_tasks.cli.screen import errors, is_first_process, quiet_libraries, show_own_messages
from hf_tasks.errors import UserError

# What only the user can mend: who may write where, the room on a disk, and what a system takes for a name.
REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_NAMES = {errno.ENAMETOOLONG, errno.ELOOP}

app = typer.Typer(
    help="From pictures or texts to a trained, measured and delivered model, with one readable recipe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
recipes = typer.Typer(help="List, show or copy the recipes that come with the program.", no_args_is_help=True)

for command in (
    training.train,
    training.check,
    training.prepare,
    training.tune,
    runs.evaluate,
    runs.report,
    runs.compare,
    runs.predict,
    runs.push,
    runs.export,
    indexing.index,
    indexing.search,
    material.sample,
    material.schema,
):
    app.command()(command)
app.add_typer(recipes, name="recipes")
recipes.command("list")(material.list_recipes)
recipes.command("show")(material.show_recipe)
recipes.command("copy")(material.copy_recipe)


def main() -> None:
    """Run the program: exit code 0 done, 2 the user can mend it, 1 a bug of ours."""
    quiet_libraries()
    show_own_messages()
    try:
        app()
    except UserError as error:
        _end_with(str(error))
    except OSError as error:
        if error.errno not in REFUSALS | NO_NAMES:
            raise
        advice = "name another" if error.errno in NO_NAMES else "make room, or see who may write there"
        _end_with(f"{error.filename or 'a file'}: {error.strerror}; {advice}")


def _end_with(message: str) -> NoReturn:
    if is_first_process():
        errors.print("[bold red]error:[/]", end=" ")
        errors.print(message, markup=False, soft_wrap=True)
    sys.exit(2)
