"""Runs `hf-tasks` in processes of its own that start at once: forked from a server that has imported it all.

The processes are real: they end by sys.exit or by SIGKILL, have workers, and take part in process groups.
"""

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

# Among what the server imports some open a GPU where there is one, and a fork could not use it any more.
FORKED = multiprocessing.get_context("spawn" if shutil.which("nvidia-smi") else "forkserver")
FORKED.set_forkserver_preload(["counted_lines", "warm_program"])
# The server does not take over sys.path.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)
LIMIT_SECONDS = 120

Process = multiprocessing.process.BaseProcess


def start(
    arguments: list[str],
    log: Path,
    *,
    prepare: Callable[[], None] | None = None,
    environment: dict[str, str] | None = None,
    threads: int = 1,
) -> Process:
    """Start `hf-tasks ARGUMENTS`; `prepare` is called in the new process before the program."""
    process = FORKED.Process(target=_program, args=(arguments, log, prepare, environment or {}, threads))
    process.start()
    return process


def end_code(process: Process) -> int:
    """Wait for the end; minus the signal for a killed process."""
    process.join(LIMIT_SECONDS)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"still running after {LIMIT_SECONDS} seconds")
    return process.exitcode


def run_to_end(arguments: list[str], log: Path, **options) -> str:
    """Run to the end, which must be a good one, and return what was printed."""
    code = end_code(start(arguments, log, **options))
    printed = log.read_text(encoding="utf-8")
    assert code == 0, printed
    return printed


def run_captured(arguments: list[str], folder: Path) -> subprocess.CompletedProcess:
    """Run in a folder, as in a terminal of 80 columns, with what was printed and said of errors apart."""
    with tempfile.TemporaryDirectory() as aside:
        out, err = Path(aside, "out"), Path(aside, "err")
        environment = {**os.environ, "COLUMNS": "80"}  # as it is now, not when the server started
        process = FORKED.Process(target=_captured, args=(arguments, folder, out, err, environment))
        process.start()
        process.join()
        return subprocess.CompletedProcess(arguments, process.exitcode, out.read_text(), err.read_text())


def run_group(
    arguments: list[str],
    log: Path,
    *,
    processes: int,
    prepare: Callable[[], None] | None = None,
    code: int = 0,
) -> None:
    """Run one group of processes, with the variables that torchrun sets, until all have ended with `code`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    # Without a GPU, as a machine may have fewer than processes.
    shared = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "CUDA_VISIBLE_DEVICES": "",
    }
    logs = [log.with_suffix(f".{rank}") for rank in range(processes)]
    started = [
        start(
            arguments,
            logs[rank],
            prepare=prepare,
            environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(processes)
    ]
    codes = [end_code(process) for process in started]
    # The first that is killed closes its connections, of which another may die before its own turn.
    is_as_wanted = set(codes) == {code} if code >= 0 else code in codes and 0 not in codes
    assert is_as_wanted, [path.read_text() for path in logs]


def call_in_group(function: Callable[..., None], *arguments: object, log: Path, processes: int) -> None:
    """Call a function in each of a group of processes, with the variables that torchrun sets."""
    run_group([], log, processes=processes, prepare=partial(_call_and_end, function, *arguments))


def kill_at_step(step: int) -> None:
    """SIGKILL this process when a training step has ended, before anything is logged or saved."""
    from transformers import TrainerCallback
    from transformers.trainer import DEFAULT_CALLBACKS

    class KillAtStep(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == step:
                _kill()

    DEFAULT_CALLBACKS.append(KillAtStep)


def signal_at_step(step: int, number: int, *, rank: int | None = None) -> None:
    """Send this process, or the one of a rank alone, a signal while a training step is at work."""
    from transformers import TrainerCallback
    from transformers.trainer import DEFAULT_CALLBACKS

    class SignalAtStep(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == step - 1 and rank in (None, args.process_index):
                # The workers of the loader too, and from outside, as a terminal or a scheduler does.
                workers = [str(process.pid) for process in multiprocessing.active_children()]
                subprocess.run(["kill", f"-{number}", *workers, str(os.getpid())], check=True)

    DEFAULT_CALLBACKS.append(SignalAtStep)


def first_alone_writes_below(folder: Path) -> None:
    """Where this process is not the first of its group, opening a file below a folder for writing fails."""

    def refuse(event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            path, flags = Path(os.fsdecode(arguments[0])), arguments[2]
            if folder in path.parents and flags & (os.O_WRONLY | os.O_RDWR):
                raise PermissionError(f"not the first process, and writes {path}")

    if os.environ["RANK"] != "0":
        sys.addaudithook(refuse)


def fill_disk_at_step(step: int) -> None:
    """From a training step on no file of this process may pass 30 kB: a checkpoint breaks off inside."""
    import resource

    from transformers import TrainerCallback
    from transformers.trainer import DEFAULT_CALLBACKS

    class FillDiskAtStep(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == step:
                resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))

    DEFAULT_CALLBACKS.append(FillDiskAtStep)


def kill_after_training() -> None:
    """SIGKILL this process when all steps are done and no model is written yet."""
    from transformers import TrainerCallback
    from transformers.trainer import DEFAULT_CALLBACKS

    class KillAfterTraining(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            _kill()

    DEFAULT_CALLBACKS.append(KillAfterTraining)


def kill_in_checkpoint(step: int) -> None:
    """SIGKILL this process when half of a checkpoint's optimizer state is on disk."""
    import torch

    save = torch.save

    def save_half(content, file, *args, **kwargs):
        save(content, file, *args, **kwargs)
        if str(file).endswith(f"checkpoint-{step}/optimizer.pt"):
            os.truncate(file, Path(file).stat().st_size // 2)
            _kill()

    torch.save = save_half


def kill_in_removal() -> None:
    """SIGKILL this process when a checkpoint is removed by half: the tensors are gone, the rest is there."""
    remove = shutil.rmtree

    def remove_half(path, *args, **kwargs):
        if Path(path).name.startswith("checkpoint-"):
            (Path(path) / "model.safetensors").unlink()
            _kill()
        remove(path, *args, **kwargs)

    shutil.rmtree = remove_half


def _call_and_end(function: Callable[..., None], *arguments: object) -> None:
    function(*arguments)
    sys.exit()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _captured(arguments: list[str], folder: Path, out: Path, err: Path, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    with err.open("wb") as file:
        os.dup2(file.fileno(), 2)
    _run(arguments, out, threads=1)


def _program(
    arguments: list[str],
    log: Path,
    prepare: Callable[[], None] | None,
    environment: dict[str, str],
    threads: int,
) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    _run(arguments, log, threads=threads, prepare=prepare)


def _run(arguments: list[str], out: Path, *, threads: int, prepare: Callable[[], None] | None = None) -> None:
    with out.open("ab") as file:
        os.dup2(file.fileno(), 1)
    # What the program would find; a child of the server would start its workers through a server too.
    multiprocessing.set_start_method("fork", force=True)
    import torch

    from hf_tasks.cli import main

    torch.set_num_threads(threads)
    if prepare is not None:
        prepare()
    sys.argv = ["hf-tasks", *arguments]
    try:
        main()
    finally:
        if prepare is None:  # else the disk may be full
            import counted_lines  # of the server that this process was forked from

            counted_lines.write_counts()
