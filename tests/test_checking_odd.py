"""The check of sets that leave nothing to try: each fault is told once, in words of the user's own files."""

import pytest
from pictures import write_class_pictures

from hf_tasks.workflow.checking import check_recipe

RECIPE = """\
task: image-classification
output: runs/odd
data: {train: {folder: pictures}, validation: 0.3}
model: {name: test_resnet, pretrained: false, image_size: 32}
training: {max_steps: 2, per_device_train_batch_size: 4, use_cpu: true, dataloader_num_workers: 0}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_source_without_rows_is_one_error_and_not_told_again_by_the_trial(folder):
    write_class_pictures(folder / "pictures", classes=2, per_class=5)
    (folder / "empty.csv").write_text("image_path,label\n")

    report = check_recipe(folder / "recipe.yaml", ["data.validation={table: empty.csv}"])

    [found] = [finding for finding in report.findings if finding.severity == "error"]
    assert found.kind == "data.validation cannot be used"
    assert found.examples == ("data.validation: empty.csv has no rows; wanted at least one",)
    assert report.needs is None


def test_a_trial_that_fails_names_no_folder_of_its_own(folder):
    write_class_pictures(folder / "pictures", classes=1, per_class=8)

    report = check_recipe(folder / "recipe.yaml")

    told = {finding.kind: finding.examples for finding in report.findings}
    assert told["the trial fails"] == (
        "data.train (the trial's train.csv): 'class0' is the only class; wanted at least two to tell apart",
    )
    assert told["fewer than two classes"] == ("class0",)
