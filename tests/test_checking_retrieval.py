"""The check of a recipe for retrieval: class folders become tables, and the sampler is told with the rows."""

import json

import numpy as np
import pytest
from conftest import run_program
from pictures import write_class_pictures
from PIL import Image

from hf_tasks.data.labels import UNSEEN

RECIPE = """\
task: metric-learning
output: runs/shelf
data: {train: {folder: train}, gallery: {folder: gallery}, query: {folder: query}}
model: {name: test_resnet, pretrained: false, image_size: 32}
loss: {name: triplet}
sampler: {classes: 3, pictures: 2}
training: {max_steps: 2, use_cpu: true, dataloader_num_workers: 0}
export: [onnx, torchscript]
"""


EXPECTED = {
    ("error", f"labels that differ from a class only in {UNSEEN}"): ["class1 /0.png"],
    ("error", "picture files without content"): ["class0/empty.png"],
    ("error", "pictures that cannot be decoded"): ["class0/cut.png", "class0/note.png"],
    ("warning", "classes that differ only in upper and lower case"): ["'Class0' and 'class0'"],
    ("warning", "classes with fewer than 5 training rows"): ["Class0: 1"],
    ("warning", "largest class 11 times the smallest"): ["class0: 11, Class0: 1"],
    ("warning", "pictures that are not what their ending says"): ["class1/named.jpg"],
    ("warning", "tiny pictures, a side below 8 pixels"): ["class0/tiny.png"],
    ("warning", "huge pictures, above 24 million pixels"): ["class0/huge.png"],
    ("warning", "odd shapes, a side over 4 times the other"): ["class0/odd.png"],
    ("warning", "the same pictures with different labels"): [
        "class0/1.png (class0)", "class2/other.png (class2)",
    ],
    ("warning", "the same pictures to train on and to measure on"): ["class0/3.png", "class1/leak.png"],
    ("warning", "pictures that stand there again"): ["class1/again.png"],
    ("warning", "nearly the same pictures to train on and to measure on"): ["class2/0.png"],
}  # fmt: skip
BATCH = "training.per_device_train_batch_size=8"
COPIES = {
    "train/class1/again": "train/class1/0", "train/class2/other": "train/class0/1",
    "gallery/class1/leak": "query/class1/0", "gallery/class0/trained": "train/class0/3",
}  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Class folders with every fault that class folders can have, checked once with --fix and --json."""
    folder = tmp_path_factory.mktemp("retrieval")
    for seed, (name, pictures) in enumerate({"train": 6, "gallery": 3, "query": 2}.items()):
        write_class_pictures(folder / name, classes=3, per_class=pictures, seed=seed)
    for copy, original in COPIES.items():
        (folder / f"{copy}.png").write_bytes((folder / f"{original}.png").read_bytes())
    generator = np.random.default_rng(7)
    sizes = {"tiny": (7, 9), "odd": (165, 41)}
    for name, (width, height) in sizes.items():
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"train/class0/{name}.png")
    Image.fromarray(pixels[:32, :32]).save(folder / "train/class1/named.jpg", format="PNG")
    Image.new("RGB", (6001, 4000), "teal").save(folder / "train/class0/huge.png")
    for twin in ("train/Class0", "train/class1 "):
        (folder / twin).mkdir()
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / twin / "0.png")
    near = Image.open(folder / "gallery/class2/0.png").resize((96, 96), Image.Resampling.NEAREST)
    near.save(folder / "query/class2/near.png")
    (folder / "train/class0/note.png").write_text("no picture")
    (folder / "train/class0/cut.png").write_bytes((folder / "train/class0/0.png").read_bytes()[:-300])
    (folder / "query/class0/empty.png").touch()
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder, run_program("check", "recipe.yaml", BATCH, "--fix", "clean", "--json", folder=folder)


@pytest.mark.slow
def test_every_planted_fault_of_class_folders_is_found_and_nothing_else(planted):
    document = json.loads(planted[1].stdout)

    found = {
        (finding["severity"], finding["kind"]): [row["text"].split(":")[0].split(" = ")[0].split(" ~ ")[0]
                                                 for row in finding["rows"]] or finding["examples"]
        for finding in document["findings"]
    }  # fmt: skip
    [sampler] = found.pop(("error", "mistakes in the trial"))
    assert "sampler.classes * sampler.pictures is 3 * 2 = 6" in sampler
    assert found == EXPECTED
    assert document["needs"] is None


@pytest.mark.slow
def test_the_cleaned_class_folders_train_with_every_export(planted):
    batch = "training.per_device_train_batch_size=6"
    done = run_program("train", "clean/recipe.yaml", batch, folder=planted[0])

    assert done.returncode == 0, done.stderr
    run = planted[0] / "runs/shelf"
    assert json.loads((run / "data.json").read_text())["train"]["rows"] == 22
    assert {path.name for path in (run / "export").iterdir()} == {"onnx", "torchscript", "parity.json"}
