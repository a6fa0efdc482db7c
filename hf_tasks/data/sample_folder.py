"""The folder of a sample: made ours by a first file that says where its contents come from."""

from pathlib import Path

from hf_tasks.errors import UserError

MARKER = "SOURCE.txt"


def claim_folder(folder: Path, name: str, source: str) -> None:
    """Make the folder, with SOURCE.txt in it.

    Args:
        folder: a new or empty folder, or one that this sample was written to before.
        name: of the sample.
        source: text of the file; its first line names the sample.

    Raises:
        UserError: `folder` is a file, or holds anything but an earlier run's output.
    """
    marker = folder / MARKER
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; wanted a new or empty folder for the sample '{name}'")
    first_line = source.partition("\n")[0].encode()
    is_ours = marker.is_file() and marker.read_bytes().partition(b"\n")[0] == first_line
    if folder.is_dir() and any(folder.iterdir()) and not is_ours:
        raise UserError(
            f"{folder}: is not empty, and not written by `hf-tasks sample {name}`; nothing was touched: "
            "choose a new folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_bytes(source.encode())
