"""Smaller ONNX files: 8-bit integers with fixed or found ranges, and 16-bit floats."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from hf_tasks.contract.exports import Arrays, ExportPlan
from hf_tasks.export.onnx import has_weights_beside, save_weights_beside

CALIBRATION_EXAMPLES = 256


def write_int8(plan: ExportPlan, plain: Path, target: Path) -> None:
    """Quantise an ONNX file, per channel: as the plan says, with calibrated ranges or with dynamic ones.

    Args:
        plan: names the kind, and gives the training examples for calibration.
        plain: the float32 file; it is not changed.
        target: the file to write.
    """
    is_beside = has_weights_beside(onnx.load(plain, load_external_data=False))
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(
            str(plain),
            str(prepared),
            skip_symbolic_shape=True,
            save_as_external_data=is_beside,
            all_tensors_to_one_file=True,
            external_data_location="prepared.onnx.data",
        )
        if plan.quantization == "dynamic":
            # Weights without a sign: of unsigned activations and signed weights, CPUs without VNNI add pairs
            # in 16 bits, which overflow. For a width of 384 the error was 9 %, without a sign 0.3 %, in the
            # same time.
            quantize_dynamic(
                str(prepared),
                str(target),
                per_channel=True,
                weight_type=QuantType.QUInt8,
                use_external_data_format=is_beside,
            )
            return
        quantize_static(
            str(prepared),
            str(target),
            _Calibration(plan.calibration(CALIBRATION_EXAMPLES)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            # Weights of 7 bits: unsigned activations and weights of 8 bits overflow likewise, and unsigned
            # weights are slower than float32 here. See docs/export.md for the figures.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=is_beside,
        )


def write_fp16(plain: Path, target: Path) -> None:
    """Halve the weights of an ONNX file; inputs and outputs stay float32."""
    is_beside = has_weights_beside(onnx.load(plain, load_external_data=False))
    # By its path, as shapes of a graph above 2 GiB can only be found from the disk.
    source = str(plain) if is_beside else onnx.load(plain)
    half = OnnxModel(convert_float_to_float16(source, keep_io_types=True))
    half.topological_sort()  # the casts at inputs and outputs were appended
    if is_beside:
        save_weights_beside(half.model, target)
    else:
        onnx.save(half.model, target)


class _Calibration(CalibrationDataReader):
    """Batches of training inputs, as onnxruntime asks for them."""

    def __init__(self, batches: Iterator[Arrays]) -> None:
        self.batches = batches

    def get_next(self) -> dict | None:
        """The next batch; None at the end."""
        batch = next(self.batches, None)
        return None if batch is None else dict(batch)
