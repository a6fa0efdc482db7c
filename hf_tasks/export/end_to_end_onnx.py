"""The ONNX graph around a network: from uint8 pixels of any size to probabilities and decisions.

Pillow resizes the columns first and the rows after, and rounds to whole levels in between; the graph does the
same, so it differs from Python's preparation by one level of 255 on few pixels. Resize gets whole shapes, as
onnxruntime's optimiser, when it moves the Transpose, mistakes sizes that are given for single axes.
"""

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx.compose
import onnx.parser
from onnx.external_data_helper import load_external_data_for_model

from hf_tasks.contract.exports import Pictures, PictureSteps
from hf_tasks.errors import ExportError
from hf_tasks.export.onnx import has_weights_beside, save_weights_beside

OPSET = 18  # the first with antialiased Resize
PICTURES = "pictures"
DECISIONS = "decisions"

# exclude_outside: at the border Pillow weighs the pixels that exist, and repeats none.
_ANTIALIAS = 'antialias = 1, exclude_outside = 1, coordinate_transformation_mode = "half_pixel"'
RESIZES = {
    "bilinear": f'{_ANTIALIAS}, mode = "linear"',
    "bicubic": f'{_ANTIALIAS}, mode = "cubic", cubic_coeff_a = -0.5',
    "nearest": 'coordinate_transformation_mode = "half_pixel", mode = "nearest", '
    'nearest_mode = "round_prefer_ceil"',
}

TARGETS = {
    "squash": "target = Identity (resize)",
    "shorter-side": """
        shorter = ReduceMin <keepdims = 1> (size)
        scaled = Mul (size, resize)
        target = Div (scaled, shorter)""",
    "cover": "ratio = ReduceMin <keepdims = 1> (ratios)",
    "contain": "ratio = ReduceMax <keepdims = 1> (ratios)",
}
_BY_RATIO = """
    size_real = Cast <to = 11> (size)
    resize_real = Cast <to = 11> (resize)
    ratios = Div (size_real, resize_real)
    {ratio}
    target_real = Div (size_real, ratio)
    target_round = Round (target_real)
    target = Cast <to = 7> (target_round)"""

_NO_BORDER = "padded = Identity (tall)"
_BORDER = """
    lacking_any = Sub (crop, target)
    lacking = Max (lacking_any, none)
    lacking_before = Div (lacking, two)
    lacking_after = Sub (lacking, lacking_before)
    borders = Concat <axis = 0> (lacking_before, lacking_after)
    unfilled = Sub (tall, fill)
    padded_unfilled = Pad (unfilled, borders, , plane_axes)
    padded = Add (padded_unfilled, fill)"""

_PREPARE = """
<ir_version: 9, opset_import: ["" : {opset}]>
prepare (uint8[batch, height, width, 3] pictures) => (float[batch, 3, {crop_height}, {crop_width}] prepared)
<int64[2] resize = {{{resize}}}, int64[2] crop = {{{crop}}},
 int64[2] plane_axes = {{2, 3}}, int64[2] none = {{0, 0}},
 int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] three = {{3}},
 float half = {{0.5}}, float lowest = {{0.0}}, float highest = {{255.0}},
 float[1, 3, 1, 1] mean = {{{mean}}}, float[1, 3, 1, 1] spread = {{{spread}}}{fill}>
{{
    size = Shape <start = 1, end = 3> (pictures)
    {target}
    target_width = Slice (target, one, two)
    planes = Transpose <perm = [0, 3, 1, 2]> (pictures)
    levels = Cast <to = 1> (planes)
    shape = Shape (levels)
    shape_kept = Slice (shape, zero, three)
    wide_shape = Concat <axis = 0> (shape_kept, target_width)
    wide_exact = Resize <{how}> (levels, , , wide_shape)
    wide_half = Add (wide_exact, half)
    wide_whole = Floor (wide_half)
    wide = Clip (wide_whole, lowest, highest)
    batch_and_planes = Slice (shape, zero, two)
    tall_shape = Concat <axis = 0> (batch_and_planes, target)
    tall_exact = Resize <{how}> (wide, , , tall_shape)
    tall_half = Add (tall_exact, half)
    tall_whole = Floor (tall_half)
    tall = Clip (tall_whole, lowest, highest)
    {border}
    spare_any = Sub (target, crop)
    spare = Max (spare_any, none)
    spare_real = Cast <to = 1> (spare)
    start_real = Mul (spare_real, half)
    start_round = Round (start_real)
    start = Cast <to = 7> (start_round)
    stop = Add (start, crop)
    cropped = Slice (padded, start, stop, plane_axes)
    centred = Sub (cropped, mean)
    prepared = Div (centred, spread)
}}
"""

_ANSWER = """
<ir_version: 9, opset_import: ["" : {opset}]>
answer (float[batch, classes] outputs) => (float[batch, classes] {answer}{more})
<float temperature = {{{temperature}}}>
{{
    tempered = Div (outputs, temperature)
    {answer} = {activation} (tempered)
    {decisions}
}}
"""
_DECIDE = """
    thresholds = Constant <value = float[{count}] {{{thresholds}}}> ()
    reached = GreaterOrEqual ({answer}, thresholds)
    decisions = Cast <to = 7> (reached)"""
ACTIVATIONS = {"softmax": "Softmax <axis = -1>", "sigmoid": "Sigmoid", "none": "Identity"}


def write_end_to_end(plain: Path, target: Path, pictures: Pictures, *, metadata: dict[str, str]) -> None:
    """Put preparation before a network and answers behind it.

    The new graph takes `pictures`, uint8 RGB of shape (batch, height, width, 3), and gives answers
    (`probabilities`) of shape (batch, classes), and `decisions` (int64, 0 and 1) where there are thresholds.

    Args:
        plain: an ONNX file from prepared pixels to outputs; it is not changed.
        target: the file to write.
        pictures: what happens before and after the network.
        metadata: kept in the new file.

    Raises:
        ExportError: the interpolation has no counterpart in ONNX.
    """
    merged = onnx.compose.add_prefix(onnx.load(plain, load_external_data=False), "network/", inplace=True)
    opset = next(item.version for item in merged.opset_import if item.domain == "")
    before, after = prepare_graph(pictures.steps, opset=opset), answer_graph(pictures, opset=opset)
    taken, given = merged.graph.input[0].name, merged.graph.output[0].name
    # merge_models would check each step in memory, which a graph with weights beside it does not stand.
    graph = onnx.compose.merge_graphs(before.graph, merged.graph, io_map=[("prepared", taken)])
    merged.graph.CopyFrom(onnx.compose.merge_graphs(graph, after.graph, io_map=[(given, "outputs")]))
    onnx.helper.set_model_props(merged, metadata)
    if has_weights_beside(merged):
        load_external_data_for_model(merged, str(plain.parent))
        save_weights_beside(merged, target)
    else:
        onnx.save(merged, target)
    onnx.checker.check_model(str(target))


def prepare_graph(steps: PictureSteps, *, opset: int = OPSET) -> onnx.ModelProto:
    """The graph from uint8 pictures to a network's input.

    Raises:
        ExportError: the interpolation has no counterpart in ONNX.
    """
    if steps.interpolation not in RESIZES:
        raise ExportError(
            f"export: {steps.interpolation} interpolation cannot be put into a graph; "
            f"wanted one of {', '.join(RESIZES)}; train with another in the model's configuration"
        )
    target = TARGETS[steps.fit]
    fill = [float(round(255 * value)) for value in steps.mean]
    text = _PREPARE.format(
        opset=max(opset, OPSET),
        target=_BY_RATIO.format(ratio=target) if steps.fit in ("cover", "contain") else target,
        border=_BORDER if steps.fit == "contain" else _NO_BORDER,
        how=RESIZES[steps.interpolation],
        resize=_numbers(steps.resize),
        crop=_numbers(steps.crop),
        crop_height=steps.crop[0],
        crop_width=steps.crop[1],
        mean=_numbers([255 * value for value in steps.mean]),
        spread=_numbers([255 * value for value in steps.std]),
        fill=f", float[1, 3, 1, 1] fill = {{{_numbers(fill)}}}" if steps.fit == "contain" else "",
    )
    return onnx.parser.parse_model(text)


def answer_graph(pictures: Pictures, *, opset: int = OPSET) -> onnx.ModelProto:
    """The graph from a network's output to probabilities, and to decisions where there are thresholds."""
    thresholds = pictures.thresholds or ()
    decisions = (
        _DECIDE.format(answer=pictures.answer, count=len(thresholds), thresholds=_numbers(thresholds))
        if thresholds
        else ""
    )
    text = _ANSWER.format(
        opset=max(opset, OPSET),
        answer=pictures.answer,
        temperature=_numbers([pictures.temperature]),
        activation=ACTIVATIONS[pictures.activation],
        more=f", int64[batch, classes] {DECISIONS}" if thresholds else "",
        decisions=decisions,
    )
    return onnx.parser.parse_model(text)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(str(value) for value in values)
