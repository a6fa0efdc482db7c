"""A study of Optuna in one folder, which several processes work on at once and go on with later.

A process holds a lock on a file for each trial it runs. The system frees the lock when the process ends,
however it ends, so a trial that is running in the study and not locked was killed.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from hf_tasks.errors import RecipeError
from hf_tasks.files import write_text
from hf_tasks.recipe.sections import Choices, Range

WAIT_SECONDS = 60
"""For another process that writes to the same database."""
KILLED = "killed"
"""Attribute of trials whose process ended; they are not counted, and others take their place."""


class SharedStudy:
    """What is in OUTPUT: tune.yaml, the recipe; tune.db, the trials; trials/NNN, their runs."""

    def __init__(self, folder: Path, *, recipe_text: str, direction: str) -> None:
        """Open a study, or begin it.

        Raises:
            RecipeError: the folder holds something else, or the study of another recipe.
        """
        _require_place(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.recipe = folder, folder / "tune.yaml"
        self.lock = FileLock(folder / "tune.lock")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self.lock:
            if not self.recipe.is_file():
                write_text(self.recipe, recipe_text)
            elif self.recipe.read_text(encoding="utf-8") != recipe_text:
                raise RecipeError(
                    [
                        f"output: {self.recipe} is the study of another recipe, whose trials do not compare; "
                        "name another folder: output=runs/NAME"
                    ]
                )
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{folder / 'tune.db'}", {"connect_args": {"timeout": WAIT_SECONDS}}
            )
            self._study = optuna.create_study(
                storage=storage,
                study_name="tune",
                direction=direction,
                pruner=optuna.pruners.MedianPruner(),
                load_if_exists=True,
            )

    def trials(self) -> list[FrozenTrial]:
        """All trials by number, those that were killed left out."""
        return [trial for trial in self._study.get_trials() if KILLED not in trial.user_attrs]

    def best(self) -> FrozenTrial | None:
        """The trial with the best result, of equal ones the first; None while none has ended well."""
        has_any = any(trial.state == TrialState.COMPLETE for trial in self.trials())
        return self._study.best_trial if has_any else None

    def run_folder(self, number: int) -> Path:
        """Folder of the run of a trial."""
        return self.folder / "trials" / f"{number:03d}"

    @contextmanager
    def next_trial(
        self, wanted: int, search: Mapping[str, Range | Choices]
    ) -> Iterator[optuna.trial.Trial | None]:
        """A trial to run, held as long as the context is open; None once all processes have begun enough.

        Args:
            wanted: trials in all, of every process and of earlier starts.
            search: values of each key.
        """
        with self.lock:
            self.fail_killed()
            trial = None if len(self.trials()) >= wanted else self._ask(search)
            held = None if trial is None else self._trial_lock(trial.number)
            if held is not None:
                held.acquire()
        try:
            yield trial
        finally:
            if held is not None:
                held.release()
                Path(held.lock_file).unlink(missing_ok=True)

    def end(
        self,
        trial: optuna.trial.Trial,
        state: TrialState,
        *,
        value: float | None = None,
        reason: str | None = None,
    ) -> None:
        """Note how a trial ended."""
        if reason is not None:
            trial.set_user_attr("reason", reason)
        self._study.tell(trial, value, state)

    def fail_killed(self) -> None:
        """Note as failed what is running and held by nobody; to be called with the lock."""
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            lock = self._trial_lock(frozen.number)
            try:
                with lock.acquire(timeout=0):
                    is_held = False
            except Timeout:
                is_held = True
            if not is_held:
                Path(lock.lock_file).unlink(missing_ok=True)
                # A trial that ends by itself tells the study before it lets go, so it is not running here.
                self._study._storage.set_trial_user_attr(frozen._trial_id, KILLED, True)
                self._study.tell(frozen.number, state=TrialState.FAIL)

    def _ask(self, search: Mapping[str, Range | Choices]) -> optuna.trial.Trial:
        """The next trial; its seed is its number, so that a study that is gone on with proposes the same."""
        seed = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return self._study.ask({key: _distribution(values) for key, values in search.items()})

    def _trial_lock(self, number: int) -> FileLock:
        self.run_folder(number).parent.mkdir(exist_ok=True)
        return FileLock(self.run_folder(number).with_suffix(".lock"))


def chosen_values(
    trial: FrozenTrial | optuna.trial.Trial, search: Mapping[str, Range | Choices]
) -> dict[str, Any]:
    """Values of a trial by key of the recipe."""
    return {
        key: json.loads(value) if isinstance(search[key], Choices) else value
        for key, value in trial.params.items()
    }


def _distribution(values: Range | Choices) -> BaseDistribution:
    """Choices as JSON: what Optuna keeps of a value is a single one, and a choice may be a section."""
    if isinstance(values, Choices):
        return CategoricalDistribution([json.dumps(choice, ensure_ascii=False) for choice in values.choices])
    if isinstance(values.low, int) and isinstance(values.high, int):
        return IntDistribution(values.low, values.high, log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _require_place(folder: Path) -> None:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if folder.exists() and not folder.is_dir():
        raise RecipeError([f"output: {folder} is a file; name another folder"])
    if "tune.db" not in names and any(not name.startswith("tune.") for name in names):
        raise RecipeError([f"output: {folder} is not empty and holds no study; name another folder"])
