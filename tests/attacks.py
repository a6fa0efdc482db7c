"""Files that would leave a mark if they were ever run."""

import pickle
from pathlib import Path


class Attack:
    """Unpickled, it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return exec, (code(self.mark),)


def code(mark: Path) -> str:
    """Python that writes a file when it is run or imported."""
    return f"open({str(mark)!r}, 'w').write('run')\n"


def write_pickle(path: Path, mark: Path) -> Path:
    path.write_bytes(pickle.dumps({"weight": Attack(mark)}))
    return path
