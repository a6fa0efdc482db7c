"""A saved model as a folder that MLflow loads: by `mlflow.pyfunc`, and by the library that it is of."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import mlflow

EMBEDDER = Path(__file__).with_name("mlflow_embedder.py")
# Left to itself MLflow imports the model in a further process to find these, and misses timm.
TEXT_REQUIREMENTS = ("torch", "transformers")
PICTURE_REQUIREMENTS = (*TEXT_REQUIREMENTS, "torchvision", "timm")
PAIR_REQUIREMENTS = (*TEXT_REQUIREMENTS, "sentence-transformers")


def build_mlflow_model(folder: Path, out: Path, *, task: str) -> Path:
    """Write an MLflow model of a saved one.

    Args:
        folder: what save_pretrained wrote.
        out: folder to write.
        task: name of our task.

    Returns:
        `out`; `folder` itself for a task that MLflow knows no model of.
    """
    match task:
        case "image-classification":
            _write_pipeline(task, folder, out, PICTURE_REQUIREMENTS)
            _complete_image_processor(folder, out)
        case "language-model":
            _write_pipeline(_language_pipeline(folder), folder, out, TEXT_REQUIREMENTS)
        case "siamese":
            _write_sentence_transformer(folder, out)
        case "metric-learning":
            mlflow.pyfunc.save_model(
                str(out),
                python_model=str(EMBEDDER),
                artifacts={"network": str(folder)},
                pip_requirements=_pinned(("mlflow", *PICTURE_REQUIREMENTS)),
            )
        case _:
            return folder
    return out


def _write_pipeline(name: str, folder: Path, out: Path, packages: tuple[str, ...]) -> None:
    from transformers import pipeline

    built = pipeline(name, model=str(folder))
    mlflow.transformers.save_model(built, str(out), task=name, pip_requirements=_pinned(packages))


def _write_sentence_transformer(folder: Path, out: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder))
    mlflow.sentence_transformers.save_model(model, str(out), pip_requirements=_pinned(PAIR_REQUIREMENTS))


def _language_pipeline(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return "fill-mask" if "MaskedLM" in str(config["architectures"]) else "text-generation"


def _pinned(packages: tuple[str, ...]) -> list[str]:
    return [f"{name}=={version(name)}" for name in packages]


def _complete_image_processor(folder: Path, out: Path) -> None:
    """Give MLflow the image processor of timm models, which saves nothing of its own.

    transformers' TimmWrapperImageProcessor is read from the model's config.json, but MLflow loads it from
    its own folder (mlflow 3.17, transformers 4.57).
    """
    component = out / "components" / "image_processor"
    if not component.exists():
        component.mkdir(parents=True)
        shutil.copy2(folder / "config.json", component / "config.json")
