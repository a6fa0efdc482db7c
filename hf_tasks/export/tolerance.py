"""How far an exported file may stray from PyTorch before it is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hf_tasks.export.compare import Comparison

EXACT = ("onnx", "torchscript")


@dataclass(frozen=True)
class Tolerance:
    """Limits; None leaves one out."""

    difference: float | None = None
    """Of outputs, as a share of the largest output of PyTorch, or absolute where all are below 1."""
    within: float = 1.0
    """Share of examples that must keep `difference`."""
    mean_difference: float | None = None
    """Of outputs, mean, as a share likewise."""
    agreement: float | None = None
    """Share of examples decided alike, ties aside."""
    metric_loss: float | None = None
    """Of the task's own metric, absolute."""


PLAIN = {
    "exact": Tolerance(difference=1e-4, agreement=1.0),
    "onnx-fp16": Tolerance(difference=1e-2, metric_loss=0.005),
    "onnx-int8": Tolerance(mean_difference=0.05, metric_loss=0.01),
    "torchao-int8": Tolerance(mean_difference=0.05, metric_loss=0.01),
}
# A complete graph is compared, in probabilities, with the plain one of its format after Python's preparation:
# one level of 255 on few pixels is all that may differ. Integers amplify it where a value is on an edge.
END_TO_END = {
    "exact": Tolerance(difference=2e-3, within=0.99, agreement=0.995),
    "onnx-fp16": Tolerance(difference=4e-3, within=0.99, agreement=0.995),
    "onnx-int8": Tolerance(difference=5e-2, within=0.99, mean_difference=5e-3, agreement=0.995),
}


def tolerance_of(format_name: str, *, end_to_end: bool, asked: Mapping[str, float]) -> Tolerance:
    """The limits for a format.

    Args:
        format_name: a plain format, such as onnx-int8.
        end_to_end: of the complete graph, whose limits are fixed.
        asked: a recipe's `difference` and `agreement` (exact formats) and `metric_loss` (the others).
    """
    kind = "exact" if format_name in EXACT else format_name
    if end_to_end:
        return END_TO_END[kind]
    names = ("difference", "agreement") if kind == "exact" else ("metric_loss",)
    return replace(PLAIN[kind], **{name: asked[name] for name in names if name in asked})


def refusal(found: Comparison, limits: Tolerance) -> str | None:
    """Why a file is refused: the first limit that it breaks, with both numbers; None if it keeps all.

    Written so that a comparison with nan breaks the limit.
    """
    unit = max(1.0, found.scale)
    if limits.difference is not None:
        allowed = limits.difference * unit
        share = float((found.differences_N <= allowed).mean())
        if not share >= limits.within:
            most = "" if limits.within == 1 else f" on {limits.within:.1%} of examples, kept on {share:.1%}"
            return f"outputs differ by up to {found.largest_difference:.2g} (allowed {allowed:.2g}{most})"
    if limits.mean_difference is not None and not found.mean_difference <= limits.mean_difference * unit:
        allowed = limits.mean_difference * unit
        return f"outputs differ by {found.mean_difference:.2g} on average (allowed {allowed:.2g})"
    if limits.agreement is not None:
        agreement = found.agreement(tie=2 * (limits.difference or 0.0))
        if not agreement >= limits.agreement:
            return f"{agreement:.2%} of decisions agree (wanted {limits.agreement:.2%})"
    if limits.metric_loss is not None and not found.metric_loss <= limits.metric_loss:
        return f"the metric loses {found.metric_loss:.4f} (allowed {limits.metric_loss:.4f})"
    return None
