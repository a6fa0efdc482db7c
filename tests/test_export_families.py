"""Three architectures of different kinds export as docs/models.md says; the script there measures all."""

import pytest
from benchmarks.model_families import DOCUMENT, FORMATS, measure


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mobilenetv3", "convnext", "vit"])
def test_a_family_exports_as_the_document_says(family):
    row = measure(family)

    lines = DOCUMENT.read_text("utf-8").splitlines()
    cells = next(line for line in lines if line.startswith(f"| {family} |")).split("|")
    name, onnx, torchscript, embedding_size = (cell.strip() for cell in cells[2:6])
    assert set(row.differences) == set(FORMATS)
    assert name == f"`{row.name}`"
    assert onnx.startswith("yes")
    assert torchscript.startswith("yes")
    assert int(embedding_size) == row.embedding_size
