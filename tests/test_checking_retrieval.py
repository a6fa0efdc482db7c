"""The check of a recipe for retrieval: class folders become tables, and the sampler is told with the rows."""

import json

import pytest
from conftest import run_program
from pictures import write_class_pictures

RECIPE = """\
task: metric-learning
output: runs/shelf
data: {train: {folder: train}, gallery: {folder: gallery}, query: {folder: query}}
model: {name: test_resnet, pretrained: false, image_size: 32}
loss: {name: triplet}
sampler: {classes: 3, pictures: 2}
training: {max_steps: 2, use_cpu: true, dataloader_num_workers: 0}
"""


@pytest.mark.slow
def test_class_folders_are_checked_and_their_cleaned_copy_trains(tmp_path):
    for seed, (name, pictures) in enumerate({"train": 6, "gallery": 3, "query": 2}.items()):
        write_class_pictures(tmp_path / name, classes=3, per_class=pictures, seed=seed)
    (tmp_path / "train/class0/5.png").write_text("no picture")
    (tmp_path / "gallery/class1/2.png").write_bytes((tmp_path / "query/class1/0.png").read_bytes())
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    batch = "training.per_device_train_batch_size=8"
    checked = run_program("check", "recipe.yaml", batch, "--fix", "clean", "--json", folder=tmp_path)
    trained = run_program(
        "train", "clean/recipe.yaml", "training.per_device_train_batch_size=6", folder=tmp_path
    )

    document = json.loads(checked.stdout)
    found = {finding["kind"]: finding for finding in document["findings"]}
    rows = {kind: [(row["section"], row["row"]) for row in of["rows"]] for kind, of in found.items()}
    assert rows == {
        "pictures that cannot be decoded": [("train", 6)],
        "the same pictures to train on and to measure on": [("gallery", 6)],
        "mistakes in the trial": [],
    }
    assert "sampler.classes * sampler.pictures is 3 * 2 = 6" in found["mistakes in the trial"]["examples"][0]
    assert document["needs"] is None
    assert trained.returncode == 0, trained.stderr
    assert json.loads((tmp_path / "runs/shelf/data.json").read_text())["train"]["rows"] == 17
