"""The check of a recipe before training: its keys, its rows, a trial of two steps, what the run will need."""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import TrainingArguments

from hf_tasks.callbacks.trial import Trial
from hf_tasks.contract.examination import Examination, Finding
from hf_tasks.contract.task import Task
from hf_tasks.data.cleaning import places_without, write_rows
from hf_tasks.errors import RecipeError, UserError
from hf_tasks.recipe import Recipe, load_recipe
from hf_tasks.workflow.needs import Needs, estimate_needs, find_shortages, find_unreachable
from hf_tasks.workflow.setup import task_and_arguments
from hf_tasks.workflow.tracking import require_trackers
from hf_tasks.workflow.training import check

SAMPLE_SEED = 0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckReport:
    """What a check found; `recipe` is None when it could not be read."""

    findings: Sequence[Finding]
    recipe: Recipe | None = None
    examination: Examination = field(default_factory=lambda: Examination((), {}))
    needs: Needs | None = None
    """None when the trial did not end well."""

    @property
    def has_errors(self) -> bool:
        """Whether training would be refused."""
        return any(finding.severity == "error" for finding in self.findings)


def check_recipe(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    everything: bool = False,
    trust_remote_code: bool = False,
    console: Console | None = None,
) -> CheckReport:
    """Find all that is wrong with a recipe and its data, and what training will need.

    Nothing of the user's is changed and no run is written. The trial trains, measures, saves, reloads and
    exports on rows that were looked at and would not be refused, so a fault of the data hides none of the
    rest.

    Args:
        path: of the recipe.
        overrides: as for training.
        everything: look at every row instead of a seeded sample.
        trust_remote_code: allow the recipe's `metrics` to fetch and run code of the Hub.
        console: told what is being done.
    """
    console = console or Console(quiet=True)
    findings = list[Finding]()
    with _told(findings, "the recipe"):
        recipe = load_recipe(path, overrides)
    if findings:
        return CheckReport(findings)
    with _told(findings, "trackers"):
        require_trackers(recipe)
    findings += find_unreachable(recipe)
    started: tuple[Task, TrainingArguments] | None = None
    with _told(findings, "training"):
        started = task_and_arguments(recipe)
    if started is None:
        return CheckReport(findings, recipe)
    task, arguments = started
    assert task.examine is not None
    with console.status("looking at the data"):
        examination = task.examine(recipe.settings, everything, SAMPLE_SEED)
    findings += _as_the_recipe_takes_them(recipe, examination.findings)
    needs = None
    if "train" in examination.sources:
        with console.status("trying two steps of everything"):
            tried = _try(recipe, examination, findings, trust_remote_code=trust_remote_code)
        if tried is not None:
            needs = estimate_needs(recipe, arguments, tried[0], share=tried[1])
            findings += find_shortages(needs)
    findings.sort(key=lambda finding: ("error", "warning", "note").index(finding.severity))
    return CheckReport(findings, recipe, examination, needs)


def left_out(findings: Sequence[Finding], section: str) -> dict[int, tuple[str, str]]:
    """By place, from 0, the rows that a cleaned table does without: kind of fault, and the row's text."""
    return {
        row.number - 1: (finding.kind, row.text)
        for finding in reversed(findings)
        for row in finding.rows
        if row.is_left_out and row.section == section
    }


def new_labels(examination: Examination, section: str) -> dict[int, str]:
    """Labels that a cleaned table has in place of those that were found, by place."""
    return {
        row.number - 1: row.label
        for finding in examination.findings
        for row in finding.rows
        if row.label is not None and row.section == section
    }


def with_sources(values: Mapping[str, Any], sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The values of a recipe, or of its settings, with other sources below `data`."""
    return {**values, "data": {**values["data"], **sources}}


def _try(
    recipe: Recipe, examination: Examination, findings: list[Finding], *, trust_remote_code: bool
) -> tuple[Trial, float] | None:
    """A trial on the usable rows that were looked at, and which share of all they are.

    Rows that are only warned of are trained on, so the trial has them too.
    """
    errors = [finding for finding in examination.findings if finding.severity == "error"]
    with tempfile.TemporaryDirectory() as folder:
        sources, share = {}, 1.0
        for section, source in examination.sources.items():
            usable = set(places_without(len(source.rows), left_out(errors, section)))
            kept = [place for place in source.looked_at if place in usable]
            if not kept:
                advice = "mend what is listed of its rows"
                findings.append(Finding("error", "no row can be used", advice, examples=(f"data.{section}",)))
                return None
            if section == "train":
                share = len(kept) / len(usable)
            labels = new_labels(examination, section)
            sources[section] = write_rows(source, Path(folder) / section, kept=kept, labels=labels)
        values = with_sources(recipe.settings.model_dump(), sources)
        trial = replace(recipe, settings=type(recipe.settings).model_validate(values))
        with _told(findings, "the trial", {f"{folder}/": "the trial's "}), _without_messages():
            quiet = Console(quiet=True)
            return check(trial, trust_remote_code=trust_remote_code, console=quiet), share
    return None


def _as_the_recipe_takes_them(recipe: Recipe, findings: Sequence[Finding]) -> list[Finding]:
    """Findings as they are; faults of rows are no errors where the recipe skips such rows."""
    if getattr(recipe.settings, "on_bad_example", "error") == "error":
        return list(findings)
    return [
        replace(finding, severity="warning", advice="skipped, as on_bad_example says")
        if finding.severity == "error" and finding.rows and all(row.is_left_out for row in finding.rows)
        else finding
        for finding in findings
    ]


@contextmanager
def _told(findings: list[Finding], what: str, words: Mapping[str, str] | None = None) -> Iterator[None]:
    """Turn what the user can mend into a finding, but for what another one has told already.

    Args:
        findings: to add it to.
        what: fails.
        words: that stand for parts of messages which mean nothing to the user.
    """
    advice = "mend what each line names"
    try:
        yield
    except UserError as error:
        if isinstance(error, RecipeError):
            kind, lines = f"mistakes in {what}", list(error.problems)
        else:
            kind, lines = f"{what} fails", str(error).splitlines()
        for found, shown in (words or {}).items():
            lines = [line.replace(found, shown) for line in lines]
        told = {line for finding in findings for line in finding.examples}
        new = tuple(line for line in lines if line not in told)
        if new:
            findings.append(Finding("error", kind, advice, examples=new))
    except torch.OutOfMemoryError as error:
        advice = "lower training.per_device_train_batch_size, with gradient_accumulation_steps in its place"
        findings.append(Finding("error", "a step does not fit into memory", advice, examples=(str(error),)))


@contextmanager
def _without_messages() -> Iterator[None]:
    """Keep what the parts log about the rows of the trial from being taken for the run's."""
    parent = logging.getLogger("hf_tasks")
    level = parent.level
    parent.setLevel(logging.ERROR)
    try:
        yield
    finally:
        parent.setLevel(level)
