"""Uploads files to a repository of the Hub in one commit, and goes on where an upload broke off."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import get_session, validate_repo_id

from hf_tasks.errors import UserError
from hf_tasks.hub.connection import why_unreachable


def require_repository_name(name: str) -> None:
    """Check a name like `owner/name` without asking the Hub.

    Raises:
        UserError: it is not such a name.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(
            f"'{name}': not the name of a repository; wanted owner/name of letters, digits, '-', '_' "
            "and '.', at most 96 characters, none of '-' and '.' first or last, and no '--' or '..'"
        ) from error
    if "/" not in name:
        raise UserError(f"{name}: not the name of a repository; wanted owner/name, such as my-team/{name}")


def upload(
    files: Mapping[str, Path],
    repository: str,
    *,
    private: bool,
    message: str,
    replaces: Sequence[str] = (),
) -> str:
    """Make the repository if it is not there, and put files into it in one commit.

    Large files go first, each by its hash: what an upload that broke off has brought there is not sent again,
    and until all have arrived the repository shows nothing of it. HF_ENDPOINT and HF_TOKEN are obeyed.

    Args:
        files: path in the repository to file on disk.
        repository: owner/name.
        private: whether a new repository is hidden from others; one that exists stays as it is.
        message: of the commit.
        replaces: patterns such as `export/*`; what the repository has of these and `files` has not is deleted
            by the same commit. All else that others put there stays.

    Returns:
        The address of the repository.

    Raises:
        UserError: the name is wrong, or the Hub cannot be reached or refuses.
    """
    require_repository_name(repository)
    reason = why_unreachable()
    if reason is not None:
        raise UserError(f"{repository}: cannot be uploaded: {reason}")
    api = HfApi()
    # The client's releases speak through different packages, whose errors have no parent in common.
    connection_errors = import_module(type(get_session()).__module__.partition(".")[0]).HTTPError
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        operations = [CommitOperationAdd(name, path) for name, path in files.items()]
        api.preupload_lfs_files(repository, operations)
        gone = [
            CommitOperationDelete(name)
            for name in _stored_files(api, repository)
            if name not in files and any(fnmatchcase(name, pattern) for pattern in replaces)
        ]
        api.create_commit(repository, [*operations, *gone], commit_message=message)
    except (OSError, RuntimeError, connection_errors) as error:
        raise UserError(
            f"{repository}: the upload to the Hub broke off: {_first_line(error)}\n"
            "Check the network, and the token: `hf auth login`, or HF_TOKEN. Then run the same "
            "command again; files that have arrived are not sent a second time."
        ) from error
    return str(address)


def _stored_files(api: HfApi, repository: str) -> list[str]:
    return [file.rfilename for file in api.model_info(repository).siblings or ()]


def _first_line(error: Exception) -> str:
    """The reason of an error, which the client may have wrapped in one that has none."""
    reason = error.__cause__ or error
    lines = str(reason).strip().splitlines()
    return lines[0] if lines else type(reason).__name__
