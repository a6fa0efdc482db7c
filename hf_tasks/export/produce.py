"""The whole export: write every format aside, prove each file, keep the good and put the others apart."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from hf_tasks.contract.exports import ExportPlan
from hf_tasks.errors import ExportError
from hf_tasks.export.choose import Budget, choose_format
from hf_tasks.export.compare import choose_rows
from hf_tasks.export.files import ExportedFile, metadata_texts, plain_formats, require_formats, write_files
from hf_tasks.export.latency import measure_latency
from hf_tasks.export.network import TorchNetwork, free_axes
from hf_tasks.export.networks import PLAIN_FILES
from hf_tasks.export.parity import PARITY, Parity, Record, read_records, sha256_of
from hf_tasks.export.prove import first_input, prove_files, time_files
from hf_tasks.files import replace_folder

ASIDE = ".unproved"
REJECTED = "rejected"


@dataclass(frozen=True)
class ExportOptions:
    """What a recipe says of exports, in plain values."""

    formats: tuple[str, ...]
    backend: Literal["auto", "optimum", "torch"] = "auto"
    sample: int | None = None
    """Validation examples of the proof; None takes all."""
    has_free_size: bool = False
    tolerance: Mapping[str, float] = field(default_factory=dict)
    budget: Budget | None = None


def export_run(
    plan: ExportPlan, options: ExportOptions, folder: Path, *, run_folder: Path, facts: Mapping[str, str]
) -> Parity:
    """Export, prove, and leave `folder/FORMAT/` for good files and `folder/rejected/FORMAT/` for others.

    Args:
        plan: the trained model.
        options: what is wanted.
        folder: `export` of a run; formats that are not asked for stay as they are.
        run_folder: where the paths of the records start; its name names models in a Triton repository.
        facts: texts of the run for the metadata of every file, such as `recipe_fingerprint`.

    Returns:
        The records; `failures` names the files that were refused, `impossible` tells of formats without any.

    Raises:
        ExportError: a package is missing, no format fits the budget, or an earlier parity.json is broken.
    """
    require_formats(options.formats, refused=plan.refused, backend=options.backend)
    read_records(folder / PARITY)
    aside = folder / ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    try:
        files, impossible = _write_all(plan, options, aside, facts)
        rows = choose_rows(plan.rows, sample=options.sample)
        records = _prove(plan, options, files, rows)
        for name_of_format in plain_formats(options.formats):
            for place in (folder / name_of_format, folder / REJECTED / name_of_format):
                shutil.rmtree(place, ignore_errors=True)
        names = tuple({Path(record.file).name for record in records})
        records = [_settle(record, folder, run_folder, names) for record in records]
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    reference = measure_latency(TorchNetwork(plan), first_input(plan))
    parity = Parity(tuple(records), plan.rows, reference, tuple(impossible))
    parity.write(folder / PARITY, anew=plain_formats(options.formats))
    anew = (*options.formats, *plain_formats(options.formats))
    if "triton" in options.formats:
        try:
            axes = free_axes(plan, has_free_size=options.has_free_size)
            packed = _pack(replace(plan, axes=axes), records, folder, run_folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        parity = replace(parity, records=(*records, *packed))
        parity.write(folder / PARITY, anew=anew)
    if options.budget is None or impossible:
        return parity
    plain = [record for record in records if record.format in PLAIN_FILES]
    marked = parity.choose(choose_format(plain, options.budget))
    marked.write(folder / PARITY, anew=anew)
    return marked


def try_formats(plan: ExportPlan, options: ExportOptions, folder: Path) -> None:
    """Export an untrained model and prove it on a few rows, so that an impossible format is known at once.

    Args:
        plan: of the untrained model.
        options: what is wanted.
        folder: where files are written; the caller removes it.

    Raises:
        ExportError: a format cannot be made, or its file does not answer as the model does.
    """
    require_formats(options.formats, refused=plan.refused, backend=options.backend)
    files, impossible = _write_all(plan, options, folder, {})
    rows = choose_rows(plan.rows, sample=options.sample)
    records = _prove(plan, options, files, rows, is_trial=True)
    problems = [*impossible, *Parity(tuple(records), plan.rows).failures]
    if problems:
        raise ExportError("\n".join(f"export: {problem.removeprefix('export: ')}" for problem in problems))


def _write_all(
    plan: ExportPlan, options: ExportOptions, folder: Path, facts: Mapping[str, str]
) -> tuple[list[ExportedFile], list[str]]:
    """Files of all formats that can be made, and a message for each that cannot."""
    metadata = metadata_texts(plan, facts)
    files, impossible = [], []
    for name in plain_formats(options.formats):
        try:
            for part, its_plan in _parts(plan).items():
                files += write_files(
                    its_plan,
                    name,
                    folder,
                    metadata=metadata,
                    backend=options.backend,
                    has_free_size=options.has_free_size,
                    part=part,
                )
        except ExportError as error:
            impossible.append(str(error))
    return files, impossible


def _prove(
    plan: ExportPlan,
    options: ExportOptions,
    files: Sequence[ExportedFile],
    rows: Sequence[int],
    *,
    is_trial: bool = False,
) -> list[Record]:
    """Records of the files, timed unless on trial, each with the plan of its graph."""
    records = []
    for part, its_plan in _parts(plan).items():
        its_files = [file for file in files if file.part == part]
        if not its_files:
            continue
        proved = prove_files(
            its_plan,
            its_files,
            rows,
            asked=options.tolerance,
            has_free_size=options.has_free_size,
            is_trial=is_trial,
        )
        records += proved if is_trial else time_files(its_plan, its_files, proved, rows)
    return records


def _parts(plan: ExportPlan) -> dict[str, ExportPlan]:
    """The plan, and the further ones by name."""
    return {"": plan, **plan.further}


def _settle(record: Record, folder: Path, run_folder: Path, names: tuple[str, ...]) -> Record:
    """Move a file, and what libraries look for beside a plain one, to where it belongs."""
    source = Path(record.file)
    format_name = source.parent.name
    home = folder / format_name if record.passed else folder / REJECTED / format_name
    home.mkdir(parents=True, exist_ok=True)
    is_plain = record.format in PLAIN_FILES
    for path in sorted(source.parent.iterdir()):
        if path.name.startswith(source.name) or (is_plain and not path.name.startswith(names)):
            shutil.move(path, home / path.name)
    file = home / source.name
    return replace(record, file=str(file.relative_to(run_folder)), sha256=sha256_of(file))


def _pack(plan: ExportPlan, records: Sequence[Record], folder: Path, run_folder: Path) -> list[Record]:
    """A Triton model repository of all files that passed and that Triton serves, with a record each."""
    from hf_tasks.export.triton import NOT_SERVED, why_refused, write_model

    repository, rejected, aside = folder / "triton", folder / REJECTED / "triton", folder / ASIDE
    shutil.rmtree(rejected, ignore_errors=True)
    packed = []
    for record in records:
        if record.passed and record.format not in NOT_SERVED:
            source = run_folder / record.file
            part = next((name for name in plan.further if record.format.endswith(f"-{name}")), "")
            its_plan = _parts(plan)[part]
            model = write_model(aside, f"{run_folder.name}-{record.format}", source, its_plan)
            reason = why_refused(model, source, its_plan)
            home = repository if reason is None else rejected
            if reason is not None:
                rejected.mkdir(parents=True, exist_ok=True)
                shutil.move(model, rejected / model.name)
            file = home / model.name / "1" / f"model{source.suffix}"
            packed.append(
                replace(
                    record,
                    format="triton",
                    file=str(file.relative_to(run_folder)),
                    passed=reason is None,
                    reason=reason,
                )
            )
    if packed:
        replace_folder(aside, repository)
    else:
        shutil.rmtree(repository, ignore_errors=True)
    return packed
