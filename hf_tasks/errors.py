"""The errors a user can mend: each says where, what was found, what was wanted, what to do next."""

import difflib
from collections.abc import Sequence
from pickle import UnpicklingError


class UserError(ValueError):
    """Something the user can mend; the program prints it without a traceback and exits with code 2."""


class RecipeError(UserError):
    """A recipe has mistakes; the message lists all of them, one a line."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(UserError):
    """Rows, files or pictures are not usable; the message counts each kind and shows the first."""


class ModelError(UserError):
    """Weights or an architecture cannot be had."""


class MetricError(UserError):
    """What the best model is chosen by is not measured."""


def require_measured(name: str | None, known: Sequence[str]) -> None:
    """Check that an evaluation gives the figure that the best model is chosen by.

    Args:
        name: metric_for_best_model; None where none is chosen.
        known: figures that it gives.

    Raises:
        MetricError: it does not.
    """
    wanted = "" if name is None else name.removeprefix("eval_")
    if wanted and wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=1)
        raise MetricError(
            f"training.metric_for_best_model: found {wanted!r}, which is not measured; wanted one of "
            f"{', '.join(known)}" + (f"; did you mean {near[0]!r}?" if near else "")
        )


class ExportError(UserError):
    """A format cannot be made, or an exported file does not answer as the trained model does."""


def is_of_pickle(error: BaseException | None) -> bool:
    """Whether an error, or the one that it came from, is PyTorch's refusal to unpickle more than tensors."""
    while error is not None and not isinstance(error, UnpicklingError):
        error = error.__context__
    return error is not None


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a run; the message says what is saved and how to go on."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:
        """What shells expect of a program that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal_number
