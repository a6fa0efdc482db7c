"""From pixels to answers inside a graph: the same pictures as Python's preparation, whatever their size."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import create_transform

from hf_tasks.contract.exports import Pictures
from hf_tasks.errors import ExportError
from hf_tasks.export.end_to_end_onnx import answer_graph, prepare_graph, write_end_to_end
from hf_tasks.export.end_to_end_torch import Preparation, end_to_end
from hf_tasks.images.steps import picture_steps

CONFIG = {
    "input_size": (3, 64, 64),
    "crop_pct": 0.875,
    "crop_mode": "center",
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
SIZES = [(427, 640), (427, 331), (97, 203), (73, 73), (64, 64), (31, 57), (1, 9)]


def pixels(height, width, number=0):
    return load_sample_images().images[number][:height, :width].copy()


def run(graph, name, value):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    return session.run(None, {name: value})


def wanted_pixels(config, picture):
    transform = create_transform(**config, is_training=False)
    return transform(Image.fromarray(picture)).numpy()[None]


def levels(prepared, config):
    """Back to 0..255, so that differences read as levels."""
    std = np.reshape(config["std"], (1, 3, 1, 1))
    return prepared * std * 255


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"interpolation": "bilinear"},
        {"crop_mode": "squash"},
        {"crop_mode": "border"},
        {"input_size": (3, 48, 80)},
        {"crop_pct": 1.0},
    ],
    ids=str,
)
def test_both_graphs_prepare_a_picture_as_timm_does(size, change):
    config = CONFIG | change
    picture = pixels(*size)
    steps = picture_steps(config)
    wanted = wanted_pixels(config, picture)

    (by_onnx,) = run(prepare_graph(steps), "pictures", picture[None])
    by_torch = Preparation(steps)(torch.from_numpy(picture[None])).numpy()

    for found in (by_onnx, by_torch):
        apart = np.abs(levels(found, config) - levels(wanted, config))
        assert found.shape == wanted.shape
        # Pillow weighs with whole numbers: a value half way between two levels may fall on the other side.
        assert apart.max() < 1.01
        assert (apart > 0.01).mean() < 0.01


@pytest.mark.parametrize("size", SIZES)
def test_nearest_picks_the_same_pixels_but_for_ties(size):
    config = CONFIG | {"interpolation": "nearest"}
    picture = pixels(*size)
    wanted = wanted_pixels(config, picture)

    (by_onnx,) = run(prepare_graph(picture_steps(config)), "pictures", picture[None])
    by_torch = Preparation(picture_steps(config))(torch.from_numpy(picture[None])).numpy()

    # A point exactly between two pixels may take either; at 640 to 109 that is one column.
    for found in (by_onnx, by_torch):
        assert (np.abs(found - wanted) > 1e-4).mean() < 0.02


def test_a_batch_is_prepared_like_its_pictures():
    pictures = np.stack([pixels(90, 120, 0), pixels(90, 120, 1)])
    graph = prepare_graph(picture_steps(CONFIG))

    (together,) = run(graph, "pictures", pictures)

    alone = np.concatenate([run(graph, "pictures", picture[None])[0] for picture in pictures])
    np.testing.assert_array_equal(together, alone)


def test_the_scripted_preparation_is_the_written_one():
    steps = picture_steps(CONFIG | {"crop_mode": "border"})
    picture = torch.from_numpy(pixels(97, 203)[None])

    scripted = torch.jit.script(Preparation(steps))

    torch.testing.assert_close(scripted(picture), Preparation(steps)(picture), atol=0, rtol=0)


def test_lanczos_is_refused_by_both():
    steps = picture_steps(CONFIG | {"interpolation": "lanczos"})

    with pytest.raises(ExportError, match="lanczos interpolation cannot be put into a graph"):
        prepare_graph(steps)
    with pytest.raises(ExportError, match="lanczos interpolation cannot be put into a graph"):
        Preparation(steps)


def test_temperature_and_thresholds_are_inside():
    pictures = Pictures(picture_steps(CONFIG), lambda row: None, "sigmoid", 2.0, (0.5, 0.9))
    outputs = np.array([[2.0, 2.0], [-2.0, 6.0], [0.0, 0.0]], np.float32)

    probabilities, decisions = run(answer_graph(pictures), "outputs", outputs)

    expected = 1 / (1 + np.exp(-outputs / 2))  # 0.731, 0.731; 0.269, 0.953; 0.5, 0.5
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert decisions.tolist() == [[1, 0], [0, 1], [1, 0]]  # what reaches its threshold is there


class Means(torch.nn.Module):
    """Logits of two classes: the mean of the first and the last plane."""

    def forward(self, pixel_values):
        return pixel_values.mean((2, 3))[:, [0, 2]]


@pytest.mark.parametrize("thresholds", [None, (0.6, 0.4)])
def test_the_complete_graphs_agree(tmp_path, thresholds):
    activation = "softmax" if thresholds is None else "sigmoid"
    pictures = Pictures(picture_steps(CONFIG), lambda row: None, activation, 0.5, thresholds)
    torch.onnx.export(
        Means(),
        (torch.zeros(2, 3, 64, 64),),
        tmp_path / "plain.onnx",
        input_names=["pixel_values"],
        output_names=["logits"],
        dynamic_axes={"pixel_values": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=18,
        dynamo=False,
    )
    picture = pixels(97, 203)[None]

    write_end_to_end(tmp_path / "plain.onnx", tmp_path / "whole.onnx", pictures, metadata={"a": "b"})
    by_onnx = run(onnx.load(tmp_path / "whole.onnx"), "pictures", picture)
    traced = torch.jit.trace(Means(), torch.zeros(2, 3, 64, 64))
    by_torch = torch.jit.script(end_to_end(traced, pictures))(torch.from_numpy(picture))

    logits = Means()(torch.from_numpy(wanted_pixels(CONFIG, picture[0]))) / 0.5
    expected = logits.softmax(-1) if thresholds is None else logits.sigmoid()
    by_torch = by_torch if thresholds else (by_torch,)
    for found in (by_onnx, by_torch):
        np.testing.assert_allclose(found[0], expected, atol=1e-3)
    if thresholds:
        assert (
            by_onnx[1].tolist()
            == by_torch[1].tolist()
            == (expected >= torch.tensor(thresholds)).long().tolist()
        )


def test_steps_of_a_square_centre_crop():
    steps = picture_steps(CONFIG)

    assert (steps.fit, steps.resize, steps.crop) == ("shorter-side", (73, 73), (64, 64))  # floor(64 / 0.875)
