"""Text that an exported language model writes, token for token beside what PyTorch writes.

Legend of axes: P texts, T tokens written.
"""

import time
from dataclasses import dataclass

import numpy as np

from hf_tasks.contract.exports import Decisions, ExportPlan, Network


@dataclass(frozen=True)
class Writing:
    """What was written after the same beginnings, and how fast, always the most probable token."""

    texts: int
    tokens: int
    """That PyTorch wrote, those after a tie left out."""
    agreement: float
    """Share of them that the file wrote at the same places."""
    ms_per_token: float
    reference_ms_per_token: float


@dataclass(frozen=True)
class Written:
    """Tokens, and the time that each of them took."""

    found: Decisions
    ms_per_token: float


def write_texts(plan: ExportPlan, network: Network | None) -> Written | None:
    """What a network writes, or the model itself; None where the plan's model writes nothing."""
    if plan.write is None:
        return None
    start = time.perf_counter()
    found = plan.write(network)
    seconds = time.perf_counter() - start
    return Written(found, 1000 * seconds / found.values.size)


def compare_writing(found: Written, wanted: Written, *, tie: float) -> Writing:
    """How much of what PyTorch wrote the file wrote as well.

    Where they part at a place whose two best tokens lie within `tie`, either is right, and what follows is
    another text: it is not compared.
    """
    values_PT, margins_PT = wanted.found.values, wanted.found.margins_N
    is_alike_PT = values_PT == found.found.values
    is_compared_PT = np.ones_like(is_alike_PT)
    for is_alike_T, is_compared_T, margins_T in zip(is_alike_PT, is_compared_PT, margins_PT, strict=True):
        parted = int(np.argmin(is_alike_T))
        if not is_alike_T[parted] and margins_T[parted] <= tie:
            is_compared_T[parted:] = False
    return Writing(
        texts=len(values_PT),
        tokens=int(is_compared_PT.sum()),
        agreement=float(is_alike_PT[is_compared_PT].mean()) if is_compared_PT.any() else 1.0,
        ms_per_token=found.ms_per_token,
        reference_ms_per_token=wanted.ms_per_token,
    )


def refusal_of_writing(found: Writing | None, *, agreement: float | None) -> str | None:
    """Why a file is refused for what it writes; None where it keeps the limit, or there is none."""
    if found is None or agreement is None or found.agreement >= agreement:
        return None
    return f"{found.agreement:.2%} of the tokens it writes agree (wanted {agreement:.2%})"
