"""A study of Optuna, which several processes or machines work on at once and go on with later.

In its own folder a process holds a lock on a file for each trial it runs. The system frees the lock when the
process ends, however it ends, so a trial that is running in the study and not locked was killed. Machines
that share a database know of each other's trials by signs of life there instead.
"""

import hashlib
import json
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
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
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.storages._heartbeat import get_heartbeat_thread
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from hf_tasks.errors import RecipeError, UserError
from hf_tasks.files import write_text
from hf_tasks.recipe.sections import Choices, Range

WAIT_SECONDS = 60
"""For another process that writes to the same database."""
ATTEMPTS = 3
BEAT_SECONDS = 30
SILENT_SECONDS = 300
"""After which a trial of another machine counts as killed."""


class SharedStudy:
    """What is in OUTPUT: tune.yaml, the recipe; tune.db, the trials; trials/NNN, their runs.

    With a storage the trials are there instead, under the name of OUTPUT, which each machine has for itself.
    """

    def __init__(self, folder: Path, *, recipe_text: str, direction: str, storage: str | None = None) -> None:
        """Open a study, or begin it.

        Args:
            folder: OUTPUT.
            recipe_text: of the search, the same for all who work on it.
            direction: maximize or minimize.
            storage: address of a database, as SQLAlchemy writes it, which several machines reach.

        Raises:
            RecipeError: the folder holds something else, or the study of another recipe.
            UserError: the database cannot be used.
        """
        _require_place(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.recipe = folder, folder / "tune.yaml"
        self.lock, self._is_remote = FileLock(folder / "tune.lock"), storage is not None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self.lock:
            if not self.recipe.is_file():
                write_text(self.recipe, recipe_text)
            elif self.recipe.read_text(encoding="utf-8") != recipe_text:
                raise _of_another_recipe(self.recipe)
            self._study = optuna.create_study(
                storage=_open_storage(f"sqlite:///{folder / 'tune.db'}" if storage is None else storage),
                study_name="tune" if storage is None else folder.as_posix(),
                direction=direction,
                pruner=optuna.pruners.MedianPruner(),
                load_if_exists=True,
            )
        digest = hashlib.sha256(recipe_text.encode()).hexdigest()
        if self._study.user_attrs.get("recipe", digest) != digest:
            raise _of_another_recipe(f"study {folder.as_posix()} of --storage")
        self._study.set_user_attr("recipe", digest)

    def trials(self) -> list[FrozenTrial]:
        """All trials by number, those that were killed or given back left out."""
        return [
            trial
            for trial in self._study.get_trials()
            if trial.state != TrialState.FAIL or "reason" in trial.user_attrs
        ]

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
        with ExitStack() as held:
            with self.lock:
                trial = self._claim(wanted, search)
                if trial is not None:
                    held.enter_context(self._held(trial))
            try:
                yield trial
            finally:
                if trial is not None:  # which has told how it ended, unless it was stopped
                    self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def end(
        self,
        trial: optuna.trial.Trial,
        state: TrialState,
        *,
        value: float | None = None,
        reason: str | None = None,
    ) -> None:
        """Note how a trial ended; one that failed has a reason."""
        if reason is not None:
            trial.set_user_attr("reason", reason)
        self._study.tell(trial, value, state)

    def fail_killed(self) -> None:
        """Note as failed what is running and held by nobody; to be called with the lock."""
        if self._is_remote:
            with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
                optuna.storages.fail_stale_trials(self._study)
            return
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
                self._study.tell(frozen.number, state=TrialState.FAIL)

    def _claim(self, wanted: int, search: Mapping[str, Range | Choices]) -> optuna.trial.Trial | None:
        """The next trial, unless enough have begun; one too many, begun at once elsewhere, is given back."""
        self.fail_killed()
        if len(self.trials()) >= wanted:
            return None
        trial = self._ask(search)
        if sum(other.number < trial.number for other in self.trials()) < wanted:
            return trial
        self._study.tell(trial, state=TrialState.FAIL)
        return None

    @contextmanager
    def _held(self, trial: optuna.trial.Trial) -> Iterator[None]:
        """Show others that the trial is being run."""
        if self._is_remote:
            with get_heartbeat_thread(trial._trial_id, self._study._storage):
                yield
            return
        lock = self._trial_lock(trial.number)
        try:
            with lock:
                yield
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)

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


def _open_storage(url: str) -> RDBStorage:
    """A database, made ready if it is new; signs of life are written where a trial is held by them."""
    address = url.partition(":")[0]
    try:
        address = make_url(url).render_as_string(hide_password=True)
        return _ready_storage(url)
    except (SQLAlchemyError, ImportError) as error:
        raise UserError(
            f"--storage: {address}: {str(error).splitlines()[0]}; wanted a database such as "
            "postgresql+psycopg2://USER@HOST/NAME, whose driver is installed"
        ) from error


def _ready_storage(url: str) -> RDBStorage:
    """With its tables, which another machine may be making in the same moment."""
    waiting = {"connect_args": {"timeout": WAIT_SECONDS}} if make_url(url).drivername == "sqlite" else {}
    beats = {"heartbeat_interval": BEAT_SECONDS, "grace_period": SILENT_SECONDS}
    connect = partial(RDBStorage, url, {"pool_pre_ping": True, **waiting}, **beats)
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        for _ in range(ATTEMPTS - 1):
            with suppress(DBAPIError):
                return connect()
            time.sleep(1)
        return connect()


def _of_another_recipe(place: Path | str) -> RecipeError:
    problem = f"output: {place} is the study of another recipe, whose trials do not compare"
    return RecipeError([f"{problem}; name another folder: output=runs/NAME"])


def _require_place(folder: Path) -> None:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if folder.exists() and not folder.is_dir():
        raise RecipeError([f"output: {folder} is a file; name another folder"])
    if "tune.yaml" not in names and any(not name.lstrip(".").startswith("tune.") for name in names):
        raise RecipeError([f"output: {folder} is not empty and holds no study; name another folder"])
