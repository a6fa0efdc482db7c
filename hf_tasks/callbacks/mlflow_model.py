"""A saved model as a folder that `mlflow.transformers` and `mlflow.pyfunc` load."""

import shutil
from importlib.metadata import version
from pathlib import Path

PIPELINES = {"image-classification": "image-classification"}
"""Tasks of ours that a pipeline of transformers answers for, by the pipeline's name."""
REQUIREMENTS = ("torch", "torchvision", "timm", "transformers")


def build_mlflow_model(folder: Path, out: Path, *, task: str) -> Path:
    """Write an MLflow model of a saved one.

    Args:
        folder: what save_pretrained wrote.
        out: folder to write.
        task: name of our task.

    Returns:
        `out`; `folder` itself for a task that no pipeline answers for.
    """
    if task not in PIPELINES:
        return folder
    from mlflow import transformers as flavor
    from transformers import pipeline

    flavor.save_model(
        pipeline(PIPELINES[task], model=str(folder)),
        str(out),
        task=PIPELINES[task],
        # Left to itself MLflow imports the model in a further process to find these, and misses timm.
        pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
    )
    _complete_image_processor(folder, out)
    return out


def _complete_image_processor(folder: Path, out: Path) -> None:
    """Give MLflow the image processor of timm models, which saves nothing of its own.

    transformers' TimmWrapperImageProcessor is read from the model's config.json, but MLflow loads it from
    its own folder (mlflow 3.17, transformers 4.57).
    """
    component = out / "components" / "image_processor"
    if not component.exists():
        component.mkdir(parents=True)
        shutil.copy2(folder / "config.json", component / "config.json")
