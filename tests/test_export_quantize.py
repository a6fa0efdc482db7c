"""8-bit ONNX files beside what Optimum's quantizer makes of the same graph."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnxruntime.quantization import QuantType

from hf_tasks.contract.exports import Decisions, ExportPlan
from hf_tasks.export.quantize import write_int8

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A small network with a convolution and a linear layer, as ONNX."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 5)
    ).eval()
    file = tmp_path_factory.mktemp("plain") / "model.onnx"
    torch.onnx.export(
        network,
        (torch.zeros(4, 3, 8, 8),),
        file,
        input_names=["x"],
        dynamo=True,
        verbose=False,
        external_data=False,
    )
    return file


def plan_of(kind):
    batches = [
        {"x": np.random.default_rng(seed).normal(size=(4, 3, 8, 8)).astype(np.float32)} for seed in (0, 1)
    ]
    return ExportPlan(
        model=torch.nn.Identity(),
        inputs={"x": torch.zeros(4, 3, 8, 8)},
        output="y",
        axes={},
        optimum_task="image-classification",
        rows=0,
        batches=lambda rows, size: iter(()),
        calibration=lambda examples: iter(batches),
        answers=lambda outputs, rows: outputs,
        decide=lambda answers, rows: Decisions(answers, answers),
        metric="accuracy",
        measure=lambda answers, rows: 0.0,
        quantization=kind,
    )


def by_optimum(plain, folder, kind, batches):
    """The file that ORTQuantizer makes, with the settings of write_int8."""
    quantization = pytest.importorskip("optimum.onnxruntime", reason="needs transformers < 4.58")
    from datasets import Dataset
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantizationMode
    from onnxruntime.quantization.shape_inference import quant_pre_process
    from optimum.onnxruntime.configuration import CalibrationConfig

    quant_pre_process(str(plain), str(folder / "prepared.onnx"), skip_symbolic_shape=True)
    quantizer = quantization.ORTQuantizer(folder / "prepared.onnx")
    settings = quantization.QuantizationConfig(
        is_static=kind == "static",
        format=QuantFormat.QDQ if kind == "static" else QuantFormat.QOperator,
        mode=QuantizationMode.QLinearOps if kind == "static" else QuantizationMode.IntegerOps,
        activations_dtype=QuantType.QUInt8,
        weights_dtype=QuantType.QInt8 if kind == "static" else QuantType.QUInt8,
        weights_symmetric=kind == "static",
        per_channel=True,
        reduce_range=kind == "static",
        operators_to_quantize=["Conv", "Gemm", "MatMul"],
    )
    ranges = None
    if kind == "static":
        rows = Dataset.from_dict({"x": np.concatenate([batch["x"] for batch in batches])}).with_format(
            "numpy"
        )
        ranges = quantizer.fit(
            rows,
            CalibrationConfig("x", "x", "x", len(rows), CalibrationMethod.MinMax),
            operators_to_quantize=settings.operators_to_quantize,
            batch_size=4,
            onnx_augmented_model_name=folder / "augmented.onnx",
        )
    quantizer.quantize(settings, folder, calibration_tensors_range=ranges)
    return folder / "prepared_quantized.onnx"


def whole_numbers(file):
    """The 8-bit weights of a file, largest first."""
    tensors = [numpy_helper.to_array(tensor) for tensor in onnx.load(file).graph.initializer]
    return sorted(
        (t for t in tensors if t.dtype in (np.int8, np.uint8) and t.size > 8), key=lambda t: -t.size
    )


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_optimum_makes_the_same_weights_through_the_same_quantizer(plain, tmp_path, kind):
    plan = plan_of(kind)
    write_int8(plan, plain, tmp_path / "ours.onnx")

    theirs = by_optimum(plain, tmp_path, kind, list(plan.calibration(8)))

    ours, others = whole_numbers(tmp_path / "ours.onnx"), whole_numbers(theirs)
    assert len(ours) == len(others) > 0
    for mine, other in zip(ours, others, strict=True):
        np.testing.assert_array_equal(mine, other)
