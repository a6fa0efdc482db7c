"""What is said of a finished run whose model cannot be opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

from safetensors import SafetensorError

from hf_tasks.errors import ModelError, UserError, is_of_pickle

# What the libraries below raise on folders that are damaged, or that somebody else has filled.
BROKEN = (
    OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, ImportError, RuntimeError,
    SafetensorError, UnpicklingError,
)  # fmt: skip


@contextmanager
def explained_model(folder: Path) -> Iterator[None]:
    """Turn the failure to open a saved model into a message for the user.

    Args:
        folder: `model` of a run, or a checkpoint.

    Raises:
        ModelError: in place of what the libraries say.
    """
    try:
        yield
    except UserError:
        raise
    except BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if is_of_pickle(error):
            reason = "its weights hold pickled objects, which are never loaded"
        raise ModelError(
            f"{folder}: the model cannot be opened: {reason}; wanted a folder as `hf-tasks train` leaves it"
        ) from error
