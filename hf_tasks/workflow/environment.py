"""What a run was made with: versions, machine and commit."""

import platform
import subprocess
from importlib.metadata import version

LIBRARIES = ("hf_tasks", "torch", "transformers", "timm", "datasets", "accelerate", "albumentations", "numpy")


def describe_environment(*, device: str, processes: int) -> dict[str, str | int | None]:
    """Python, machine, device, count of processes, commit of the working directory, versions of libraries."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "processes": processes,
        "git_commit": _git_commit(),
        **{name: version(name) for name in LIBRARIES},
    }


def _git_commit() -> str | None:
    """The commit of the working directory, with `-dirty` where files differ; None outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
