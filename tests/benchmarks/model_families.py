"""Exports the smallest member of each timm family to ONNX and TorchScript, and proves both.

python tests/benchmarks/model_families.py            # prints the table, about two minutes
python tests/benchmarks/model_families.py --write    # and puts it into docs/models.md
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image

from hf_tasks.export.files import write_files
from hf_tasks.export.prove import prove_files
from hf_tasks.images.backbone import open_weights
from hf_tasks.tasks.image_classification.data import ClassificationSplits
from hf_tasks.tasks.image_classification.export import plan_export
from hf_tasks.tasks.image_classification.model import build_classifier

IMAGE_SIZE = 64
CLASSES = ("a", "b", "c")
DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
MARKS = ("<!-- table -->\n", "<!-- end of table -->\n")
FAMILIES = {
    "resnet": "resnet10t",
    "resnext": "resnext26ts",
    "wide_resnet": "wide_resnet50_2",
    "mobilenetv2": "mobilenetv2_035",
    "mobilenetv3": "mobilenetv3_small_050",
    "mobilenetv4": "mobilenetv4_conv_small_035",
    "efficientnet": "tf_efficientnet_lite0",
    "densenet": "densenet121",
    "regnet": "regnetx_002",
    "convnext": "convnext_atto",
    "vit": "vit_tiny_patch16_224",
    "deit": "deit_tiny_patch16_224",
    "swin": "swin_tiny_patch4_window7_224",
}


@dataclass(frozen=True)
class Row:
    """What one architecture gave."""

    family: str
    name: str
    differences: dict[str, float]
    """Largest difference of logits by format; only of formats that passed."""
    embedding_size: int
    seconds: float

    def markdown(self):
        cells = [
            f"yes, {self.differences[name]:.0e}" if name in self.differences else "no" for name in FORMATS
        ]
        return f"| {self.family} | `{self.name}` | {' | '.join(cells)} | {self.embedding_size} |"


FORMATS = ("onnx", "torchscript")


def measure(family):
    """Build with random weights, export both formats, and prove them on twelve pictures."""
    name, start = FAMILIES[family], time.perf_counter()
    torch.manual_seed(0)
    opened = open_weights(name, pretrained=False, image_size=IMAGE_SIZE)
    model = build_classifier(opened, class_names=CLASSES, is_multilabel=False)
    plan = plan_export(None, model, noise_splits())
    settle(model, next(plan.batches(range(plan.rows), plan.rows))["pixel_values"])
    passed = {}
    for format_name in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            files = write_files(plan, format_name, Path(folder), metadata={})
            (plain,) = prove_files(plan, files[:1], range(plan.rows), asked={})
            if plain.passed:
                passed[format_name] = plain.largest_difference
    return Row(family, name, passed, model.timm_model.num_features, time.perf_counter() - start)


def settle(model, pixel_values):
    """Fit the statistics of batch norms, and let the logits reach 10: else differences mean nothing."""
    batch = torch.from_numpy(pixel_values)
    with torch.no_grad():
        model.train()
        for _ in range(10):
            model(batch)
        model.eval()
        head = model.timm_model.get_classifier()
        head.weight.mul_(10 / model(batch).logits.abs().max())
        head.bias.zero_()


def noise_splits():
    """Twelve pictures of noise at three sizes; random weights have nothing to learn from them."""
    rng = np.random.default_rng(0)
    images = [encode(rng.integers(0, 256, (50 + 17 * (n % 3), 80, 3), np.uint8)) for n in range(12)]
    labels = [n % len(CLASSES) for n in range(12)]
    rows = datasets.Dataset.from_dict({"image": images, "label": labels})
    rows = rows.cast_column("image", datasets.Image(decode=False))
    return ClassificationSplits(rows, rows, CLASSES, False, {})


def encode(pixels):
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return {"path": None, "bytes": buffer.getvalue()}


def table(rows):
    head = ["| family | smallest member | onnx | torchscript | embedding_size |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(row.markdown() for row in rows)]) + "\n"


def main():
    rows = []
    for family in FAMILIES:
        rows.append(measure(family))
        print(rows[-1].markdown(), f"{rows[-1].seconds:.1f} s", flush=True)
    print(f"{sum(row.seconds for row in rows):.0f} s")
    if "--write" in sys.argv:
        before, _, rest = DOCUMENT.read_text("utf-8").partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        DOCUMENT.write_text(before + MARKS[0] + table(rows) + MARKS[1] + after, "utf-8")


if __name__ == "__main__":
    main()
