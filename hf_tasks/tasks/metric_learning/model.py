"""The embedding network in transformers' timm wrapper, and the module that the Trainer wraps, with its loss.

B pictures, D width of the embedding.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    TimmWrapperModel,
)

from hf_tasks.images.backbone import OpenedWeights, build_backbone

PROJECTED_NAME = "embedding_{}"
"""Name of an output of the projection, where a classifier has class names."""

Embedder: TypeAlias = TimmWrapperModel | TimmWrapperForImageClassification


def build_embedder(opened: OpenedWeights, *, embedding_size: int | None, pooling: str | None) -> Embedder:
    """A network that gives embeddings, from the opened weights.

    Without `embedding_size` it is a TimmWrapperModel, whose `pooler_output` is the embedding. With it, the
    place of timm's classifier is taken by the projection: a TimmWrapperForImageClassification, whose `logits`
    are the embedding. Both load with plain transformers; the direction of the vector counts, not its length.

    Args:
        opened: what open_weights returned.
        embedding_size: width of a linear projection; None for the features of the network.
        pooling: timm's `global_pool`; None keeps the network's own.

    Raises:
        ModelError: the weights do not fit the architecture.
    """
    opened = with_pooling(opened, pooling)
    width = embedding_size or 0
    names = tuple(PROJECTED_NAME.format(index) for index in range(width))
    config = TimmWrapperConfig(
        architecture=opened.architecture,
        pretrained_cfg=_without_classes(opened),
        model_args=dict(opened.model_args) or None,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    backbone = build_backbone(opened, classes=width, keep_head=opened.class_names == names)
    model = TimmWrapperForImageClassification(config) if width else TimmWrapperModel(config)
    model.timm_model.load_state_dict(backbone.state_dict())
    return model


def with_pooling(opened: OpenedWeights, pooling: str | None) -> OpenedWeights:
    """The same, built with another pooling."""
    if pooling is None:
        return opened
    model_args = {**opened.model_args, "global_pool": pooling}
    return OpenedWeights(
        opened.architecture, opened.pretrained_cfg, opened.tensors, opened.class_names, model_args
    )


def load_embedder(folder: Any) -> Embedder:
    """A saved network, as build_embedder made it."""
    config = TimmWrapperConfig.from_pretrained(folder)
    kind = TimmWrapperForImageClassification if config.num_labels else TimmWrapperModel
    return kind.from_pretrained(folder)


def embed(model: Embedder, pixel_values: Tensor) -> Tensor:
    """Unit vectors of prepared pictures, float32 (B, D), as the model was measured.

    Where its configuration says `flip_average`, they lie between those of the pictures and of their mirror
    images.
    """
    units_BD = embed_once(model, pixel_values)
    if not getattr(model.config, "flip_average", False):
        return units_BD
    return functional.normalize(units_BD + embed_once(model, pixel_values.flip(-1)), dim=-1)


def embed_once(model: Embedder, pixel_values: Tensor) -> Tensor:
    """Unit vectors of the pictures as they are, float32 (B, D)."""
    outputs = model(pixel_values=pixel_values)
    raw_BD = outputs.logits if hasattr(outputs, "logits") else outputs.pooler_output
    return functional.normalize(raw_BD.float(), dim=-1)


@torch.no_grad()
def embedding_width(model: Embedder) -> int:
    """Width of the embeddings, measured on an empty picture."""
    was_training = model.training
    size = model.config.pretrained_cfg["input_size"]
    width = embed_once(model.eval(), torch.zeros(1, *size, device=model.device)).shape[1]
    model.train(was_training)
    return width


def load_cutoff(folder: Path) -> float | None:
    """1 - cosine from which on a saved network refuses a query; None where it was not measured."""
    cutoff: float | None = json.loads((folder / "config.json").read_text(encoding="utf-8")).get(
        "cutoff_distance"
    )
    return cutoff


class EmbedderWithLoss(nn.Module):
    """What the Trainer wraps: the network, and the loss whose weights are trained and saved with it."""

    main_input_name = "pixel_values"
    # Read by the Trainer, which else would hand its count of labels to forward.
    accepts_loss_kwargs = False

    def __init__(self, embedder: PreTrainedModel, loss: nn.Module | None) -> None:
        """Join them; the loss is None where a saved model is only measured."""
        super().__init__()
        self.embedder = embedder
        self.loss = loss

    @property
    def config(self) -> TimmWrapperConfig:
        """The network's."""
        return self.embedder.config

    def forward(self, pixel_values: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """`loss` of a batch, a scalar, and its `embeddings`, unit vectors (B, D)."""
        assert self.loss is not None
        embeddings_BD = embed_once(self.embedder, pixel_values)
        return {"loss": self.loss(embeddings_BD, labels), "embeddings": embeddings_BD}

    def gradient_checkpointing_enable(self, **arguments: Any) -> None:
        """Trade time for memory in the network."""
        self.embedder.gradient_checkpointing_enable(**arguments)


def _without_classes(opened: OpenedWeights) -> dict[str, object]:
    """The configuration of timm less what belongs to a classifier."""
    left_out = ("num_classes", "label_names", "label_descriptions")
    return {key: value for key, value in opened.pretrained_cfg.items() if key not in left_out}
