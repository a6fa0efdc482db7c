"""Triton's model repository: its text against Triton's own schema, its files against the proved ones.

The schema is the part of message ModelConfig that is used, with the numbers and types of
triton-inference-server/common, protobuf/model_config.proto; text_format refuses other names and values.
"""

import onnx
import onnx.parser
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from hf_tasks.contract.exports import ExportPlan
from hf_tasks.export.torchscript import write_torchscript
from hf_tasks.export.triton import why_refused, write_model

F = descriptor_pb2.FieldDescriptorProto
DATA_TYPES = [
    f"TYPE_{name}"
    for name in (
        *("INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
        *("FP16", "FP32", "FP64", "STRING", "BF16"),
    )
]
KINDS = ["KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"]
MESSAGES = {
    "ModelInput": [("name", 1, F.TYPE_STRING), ("data_type", 2, "DataType"), ("dims", 4, [F.TYPE_INT64])],
    "ModelOutput": [
        ("name", 1, F.TYPE_STRING),
        ("data_type", 2, "DataType"),
        ("dims", 3, [F.TYPE_INT64]),
        ("label_filename", 4, F.TYPE_STRING),
    ],
    "ModelInstanceGroup": [("count", 2, F.TYPE_INT32), ("kind", 4, "Kind")],
    "ModelDynamicBatching": [("max_queue_delay_microseconds", 2, F.TYPE_UINT64)],
    "ModelConfig": [
        ("name", 1, F.TYPE_STRING),
        ("max_batch_size", 4, F.TYPE_INT32),
        ("input", 5, ["ModelInput"]),
        ("output", 6, ["ModelOutput"]),
        ("instance_group", 7, ["ModelInstanceGroup"]),
        ("default_model_filename", 8, F.TYPE_STRING),
        ("dynamic_batching", 11, "ModelDynamicBatching"),
        ("backend", 17, F.TYPE_STRING),
    ],
}
ENUMS = {"DataType": DATA_TYPES, "Kind": KINDS}


def model_config_class():
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="t", syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            is_list = isinstance(kind, list)
            label = F.LABEL_REPEATED if is_list else F.LABEL_OPTIONAL
            kind = kind[0] if is_list else kind
            field = message.field.add(name=field_name, number=number, label=label)
            if isinstance(kind, str):
                field.type = F.TYPE_ENUM if kind in ENUMS else F.TYPE_MESSAGE
                field.type_name = f".t.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.ModelConfig"))


def read_config(folder):
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_class()())


class Doubling(torch.nn.Module):
    def forward(self, pixel_values):
        return 2 * pixel_values.mean((2, 3))


@pytest.fixture
def plan():
    return ExportPlan(
        model=Doubling(),
        inputs={"pixel_values": torch.zeros(2, 3, 8, 8)},
        output="logits",
        axes={"pixel_values": {0: "batch"}},
        optimum_task="image-classification",
        rows=0,
        batches=lambda rows, size: iter(()),
        calibration=lambda examples: iter(()),
        answers=lambda outputs, rows: outputs,
        decide=lambda answers: None,
        metric="accuracy",
        measure=lambda answers, rows: 0.0,
        labels=("cat", "two\nlines", "é"),
    )


@pytest.fixture
def onnx_file(tmp_path):
    text = """<ir_version: 9, opset_import: ["" : 18]>
    g (uint8[batch, height, width, 3] pictures) => (float[batch, 4] probabilities, int64[batch, 4] decisions)
    { probabilities = Constant <value = float[1, 4] {0.0, 0.0, 0.0, 0.0}> ()
      decisions = Cast <to = 7> (probabilities) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "end_to_end.onnx")
    return tmp_path / "end_to_end.onnx"


def test_an_onnx_model_is_described_by_its_own_ports(onnx_file, plan, tmp_path):
    folder = write_model(tmp_path / "repository", "digits v1-onnx", onnx_file, plan)

    config = read_config(folder)

    assert config.name == folder.name == "digits_v1-onnx"
    assert (config.backend, config.default_model_filename) == ("onnxruntime", "model.onnx")
    assert config.max_batch_size == 32
    assert config.HasField("dynamic_batching")
    assert [(group.count, KINDS[group.kind]) for group in config.instance_group] == [(1, "KIND_AUTO")]
    assert [(i.name, DATA_TYPES[i.data_type], list(i.dims)) for i in config.input] == [
        ("pictures", "TYPE_UINT8", [-1, -1, 3])
    ]
    assert [(o.name, DATA_TYPES[o.data_type], list(o.dims), o.label_filename) for o in config.output] == [
        ("probabilities", "TYPE_FP32", [4], "labels.txt"),
        ("decisions", "TYPE_INT64", [4], ""),
    ]


def test_a_torchscript_model_has_numbered_ports(plan, tmp_path):
    write_torchscript(plan, tmp_path / "model.pt", metadata={})

    folder = write_model(tmp_path / "repository", "means", tmp_path / "model.pt", plan)

    config = read_config(folder)
    assert (config.backend, config.default_model_filename) == ("pytorch", "model.pt")
    assert [(i.name, DATA_TYPES[i.data_type], list(i.dims)) for i in config.input] == [
        ("pixel_values__0", "TYPE_FP32", [3, 8, 8])
    ]
    assert [(o.name, list(o.dims)) for o in config.output] == [("logits__0", [3])]
    assert (folder / "1" / "model.pt").read_bytes() == (tmp_path / "model.pt").read_bytes()


def test_labels_are_a_line_each(onnx_file, plan, tmp_path):
    folder = write_model(tmp_path / "repository", "m", onnx_file, plan)

    assert (folder / "labels.txt").read_text("utf-8") == "cat\ntwo lines\né\n"


def test_the_packed_file_must_be_the_proved_one(onnx_file, plan, tmp_path):
    folder = write_model(tmp_path / "repository", "m", onnx_file, plan)
    assert why_refused(folder, onnx_file, plan) is None

    with (folder / "1" / "model.onnx").open("ab") as file:
        file.write(b"\0")

    assert why_refused(folder, onnx_file, plan) == "1/model.onnx is not the file that was proved"


def test_the_description_must_be_that_of_the_file(onnx_file, plan, tmp_path):
    folder = write_model(tmp_path / "repository", "m", onnx_file, plan)
    config = folder / "config.pbtxt"

    config.write_text(config.read_text().replace("TYPE_UINT8", "TYPE_FP32"))

    assert why_refused(folder, onnx_file, plan) == "config.pbtxt does not describe the file that was proved"


def test_a_wrong_word_would_be_noticed():
    with pytest.raises(text_format.ParseError, match="max_batch_sise"):
        text_format.Parse("max_batch_sise: 3", model_config_class()())
