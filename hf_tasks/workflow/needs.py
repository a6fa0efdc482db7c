"""What a run will need, from what a trial took: time, memory, disk, and servers that answer."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from huggingface_hub import get_token
from transformers import TrainingArguments

from hf_tasks.callbacks.trial import Trial, memory_bytes
from hf_tasks.contract.examination import Finding
from hf_tasks.hub.connection import why_unreachable
from hf_tasks.recipe import Recipe
from hf_tasks.workflow.tracking import tracking_uri

PROBE_SECONDS = 5
MEMORY_SHARE = 0.9


@dataclass(frozen=True)
class Needs:
    """What training needs; times are estimates from one step and one evaluation."""

    steps: int
    seconds_per_step: float
    seconds: float
    """Of all steps and evaluations."""
    memory_bytes: int
    """Peak while training and measuring."""
    memory_there: int | None
    disk_bytes: int
    """Of the checkpoints that are kept, one more while it is written, and the model."""
    disk_free: int


def estimate_needs(recipe: Recipe, arguments: TrainingArguments, trial: Trial, *, share: float) -> Needs:
    """What the run of a recipe needs.

    Args:
        recipe: of the run, not of the trial.
        arguments: of that run.
        trial: what its trial took.
        share: part of all rows that the trial had, in (0, 1].
    """
    at_once = arguments.train_batch_size * arguments.world_size * arguments.gradient_accumulation_steps
    epoch_steps = max(1, math.ceil(trial.examples / share / at_once))
    steps = math.ceil(arguments.num_train_epochs * epoch_steps)
    if arguments.max_steps > 0:
        steps = arguments.max_steps
    evaluations = math.ceil(steps / epoch_steps)
    if arguments.eval_strategy == "steps" and arguments.eval_steps:
        evaluations = max(1, int(steps // arguments.eval_steps))
    kept = recipe.checkpoints.keep_best + 2
    folder = recipe.output.absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    return Needs(
        steps=steps,
        seconds_per_step=trial.seconds_per_step,
        seconds=steps * trial.seconds_per_step + evaluations * trial.evaluation_seconds / share,
        memory_bytes=trial.peak_bytes,
        memory_there=memory_bytes(),
        disk_bytes=kept * trial.checkpoint_bytes + trial.model_bytes,
        disk_free=shutil.disk_usage(there).free,
    )


def find_shortages(needs: Needs) -> list[Finding]:
    """What the machine has too little of."""
    findings = []
    if needs.disk_bytes > needs.disk_free:
        example = f"wanted {shown_bytes(needs.disk_bytes)}, free are {shown_bytes(needs.disk_free)}"
        advice = "free some, lower checkpoints.keep_best, or name another `output`"
        findings.append(Finding("error", "too little space for checkpoints", advice, examples=(example,)))
    if needs.memory_there is not None and needs.memory_bytes > MEMORY_SHARE * needs.memory_there:
        example = f"{shown_bytes(needs.memory_bytes)} of {shown_bytes(needs.memory_there)}"
        advice = "lower training.per_device_train_batch_size, with gradient_accumulation_steps in its place"
        findings.append(Finding("warning", "training fills the memory", advice, examples=(example,)))
    return findings


def find_unreachable(recipe: Recipe) -> Iterator[Finding]:
    """Servers of the recipe that do not answer, and the Hub without a token."""
    if recipe.report.mlflow is not None:
        uri = tracking_uri(recipe.output, recipe.report.mlflow.tracking_uri)
        reason = _why_silent(uri) if uri.startswith(("http://", "https://")) else None
        if reason is not None:
            advice = "training goes on without it; `hf-tasks report RUN --resend` sends what it missed"
            yield Finding("warning", "MLflow does not answer", advice, examples=(f"{uri}: {reason}",))
    if recipe.hub is not None:
        reason = why_unreachable()
        if reason is not None:
            yield Finding(
                "warning", "the Hub does not answer", "see to it before the end", examples=(reason,)
            )
        elif get_token() is None:
            advice = "`hf auth login`, or set HF_TOKEN"
            yield Finding("error", "no token for the Hub", advice, examples=(recipe.hub.repo,))


def shown_bytes(count: float) -> str:
    """A size in the unit that people would take."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def shown_seconds(seconds: float) -> str:
    """A time in the unit that people would take."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{_two_digits(seconds / size)} {unit}"
    return f"{_two_digits(seconds)} s"


def _two_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def _why_silent(uri: str) -> str | None:
    """Why a tracking server cannot be asked; None when it answers, whatever it says."""
    try:
        with urlopen(Request(f"{uri.rstrip('/')}/health"), timeout=PROBE_SECONDS):
            return None
    except HTTPError:
        return None
    except (OSError, HTTPException) as error:
        return str(getattr(error, "reason", error))
