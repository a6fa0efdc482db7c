"""The proof of exported files: outputs, decisions, the task's metric, size and latency beside PyTorch's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hf_tasks.contract.exports import Arrays, ExportPlan, Network, NetworkWithPast
from hf_tasks.errors import ExportError
from hf_tasks.export.compare import Comparison, compare_end_to_end, compare_networks, picture_batches
from hf_tasks.export.files import ExportedFile
from hf_tasks.export.latency import measure_latency
from hf_tasks.export.network import ReadInTwoParts, TorchNetwork
from hf_tasks.export.networks import open_network
from hf_tasks.export.parity import Metric, Record, parts_of
from hf_tasks.export.tolerance import Tolerance, refusal, tolerance_of
from hf_tasks.export.writing import Writing, compare_writing, refusal_of_writing, write_texts


def prove_files(
    plan: ExportPlan,
    files: Sequence[ExportedFile],
    rows: Sequence[int],
    *,
    asked: Mapping[str, float],
    has_free_size: bool = False,
    is_trial: bool = False,
) -> list[Record]:
    """Compare files with PyTorch on validation rows.

    A plain file is compared with the model itself; a complete graph with the plain file of its format, which
    must stand before it among the files, fed by Python's preparation; it holds that network, and is refused
    with it.

    Args:
        plan: gives model, examples and metric.
        files: what write_files returned.
        rows: validation rows.
        asked: tolerances of the recipe, see tolerance_of.
        has_free_size: prove plain files at a second picture size too.
        is_trial: of an untrained model, whose metric means nothing.

    Returns:
        A record a file, in their order, with the files' own paths; latency is for time_files.

    Raises:
        ExportError: the size is to be free, and the model takes no other than its own.
    """
    plain = {file.format: _open(plan, file) for file in files if not file.is_end_to_end}
    read = {name: _reads_in_parts(network) for name, network in plain.items()}
    complete = {file.format: _open(plan, file) for file in files if file.is_end_to_end}
    found = compare_networks(plan, read, rows)
    written = _compare_writing(plan, plain, asked=asked)
    twins = {name: comparison.answers for name, comparison in found.items()}
    of_complete = compare_end_to_end(plan, complete, rows, twins=twins) if complete else {}
    at_other_size = _other_size(plan, plain) if has_free_size else {}
    records: list[Record] = []
    refused: set[str] = set()
    for file in files:
        comparison = of_complete[file.format] if file.is_end_to_end else found[file.format]
        limits = tolerance_of(file.format, end_to_end=file.is_end_to_end, asked=asked)
        reason = refusal(comparison, _of_trial(limits) if is_trial else limits)
        if file.is_end_to_end and file.format in refused:
            reason = reason or f"the network in it was refused as {file.format}"
        elif not file.is_end_to_end:
            reason = reason or _refused_at_other_size(at_other_size.get(file.format), limits)
            reason = reason or refusal_of_writing(written.get(file.format), agreement=limits.agreement)
        record = _record(plan, file, comparison, reason, before=found[file.format].metric_before)
        records.append(replace(record, writing=written.get(file.format)))
        if reason is not None:
            refused.add(file.format)
    return records


def time_files(
    plan: ExportPlan, files: Sequence[ExportedFile], records: Sequence[Record], rows: Sequence[int]
) -> list[Record]:
    """The records with each file's latency for an example, alone and 32 times."""
    pixel_inputs = next(picture_batches(plan, rows[:1]), {})
    return [
        replace(
            record,
            latency_ms=measure_latency(
                _open(plan, file), pixel_inputs if file.is_end_to_end else first_input(plan)
            ),
        )
        for file, record in zip(files, records, strict=True)
    ]


def first_input(plan: ExportPlan) -> Arrays:
    """The plan's first example, as a batch of one."""
    return {name: value[:1].numpy() for name, value in plan.inputs.items()}


def _open(plan: ExportPlan, file: ExportedFile) -> Network:
    return open_network(file.path, lambda: plan.model)


def _reads_in_parts(network: Network) -> Network:
    return ReadInTwoParts(network) if isinstance(network, NetworkWithPast) else network


def _compare_writing(
    plan: ExportPlan, networks: Mapping[str, Network], *, asked: Mapping[str, float]
) -> dict[str, Writing]:
    wanted = write_texts(plan, None)
    found = {}
    for name, network in networks.items():
        written = write_texts(plan, network)
        if written is not None and wanted is not None:
            limit = tolerance_of(name, end_to_end=False, asked=asked).difference or 0.0
            found[name] = compare_writing(written, wanted, tie=2 * limit)
    return found


def _record(
    plan: ExportPlan, file: ExportedFile, found: Comparison, reason: str | None, *, before: float
) -> Record:
    return Record(
        format=file.name,
        file=str(file.path),
        passed=reason is None,
        reason=reason,
        examples=len(found.answers),
        largest_difference=found.largest_difference,
        mean_difference=found.mean_difference,
        agreement=found.agreement(),
        metric=Metric(plan.metric, before, found.metric_after, plan.lower_is_better),
        bytes=sum(part.stat().st_size for part in parts_of(file.path)),
    )


def _of_trial(limits: Tolerance) -> Tolerance:
    return replace(limits, metric_loss=None)


def _other_size(plan: ExportPlan, networks: Mapping[str, Network]) -> dict[str, float]:
    """Largest difference, as a share of the largest output, at a picture size half as large again."""
    inputs = {
        name: _larger(value.numpy(), plan.size_axes.get(name, {})) for name, value in plan.inputs.items()
    }
    try:
        wanted = TorchNetwork(plan)(inputs)
    except (RuntimeError, AssertionError) as error:
        raise ExportError(
            f"export.image_size: free: this model takes no other picture size than its own: {error}; "
            "set export.image_size: fixed"
        ) from error
    unit = max(1.0, float(np.abs(wanted).max()))
    shares = {}
    for name, network in networks.items():
        try:
            found = network(inputs)
        except ExportError:
            shares[name] = math.inf
            continue
        is_alike = found.shape == wanted.shape
        shares[name] = float(np.abs(found - wanted).max()) / unit if is_alike else math.inf
    return shares


def _larger(value: np.ndarray, axes: Mapping[int, str]) -> np.ndarray:
    for axis in axes:
        size = 32 * math.ceil(1.5 * value.shape[axis] / 32)
        value = np.take(value, np.arange(size) % value.shape[axis], axis=axis)
    return value


def _refused_at_other_size(share: float | None, limits: Tolerance) -> str | None:
    allowed = limits.difference if limits.difference is not None else limits.mean_difference
    if share is None or allowed is None or share <= allowed:
        return None
    if math.isinf(share):
        return "it does not run on larger pictures; set export.image_size: fixed"
    return f"at a larger picture outputs differ by {share:.2g} of the largest (allowed {allowed:.2g})"
