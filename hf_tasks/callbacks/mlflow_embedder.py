"""What MLflow runs of a saved embedding network; the file is copied into its model and needs no hf_tasks."""

import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification
from transformers.image_utils import load_image


class Embedder(PythonModel):
    """Unit vectors of pictures."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the network that was copied beside this file."""
        folder = context.artifacts["network"]
        config = AutoConfig.from_pretrained(folder)
        kind = AutoModelForImageClassification if config.num_labels else AutoModel
        self._network = kind.from_pretrained(folder).eval()
        self._processor = AutoImageProcessor.from_pretrained(folder)
        self._is_flip_averaged = getattr(config, "flip_average", False)

    # MLflow reads its schema of inputs from the hints, and wants no context then.
    @torch.inference_mode()
    def predict(self, model_input: list[str]) -> list[list[float]]:  # type: ignore[override]
        """Embeddings of the pictures at these paths, a list of D numbers each."""
        pictures = [load_image(path) for path in model_input]
        pixel_values = self._processor(pictures, return_tensors="pt")["pixel_values"]
        units_BD = self._units(pixel_values)
        if self._is_flip_averaged:
            units_BD = functional.normalize(units_BD + self._units(pixel_values.flip(-1)), dim=-1)
        vectors: list[list[float]] = units_BD.tolist()
        return vectors

    def _units(self, pixel_values: Tensor) -> Tensor:
        outputs = self._network(pixel_values=pixel_values)
        return functional.normalize(outputs["logits" if "logits" in outputs else "pooler_output"], dim=-1)


set_model(Embedder())
