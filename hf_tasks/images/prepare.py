"""The cache filled ahead of training: the pictures of both splits, decoded, and what was there checked."""

from typing import Any

import datasets
from transformers import TimmWrapperImageProcessor

from hf_tasks.contract import Packed
from hf_tasks.images.cache import ProgressBar, pack_pictures
from hf_tasks.images.transform import ValidationTransform, build_train_transform


def prepare_splits(
    train: datasets.Dataset,
    validation: datasets.Dataset,
    *,
    config: Any,
    augmentation: str,
    progress: ProgressBar,
) -> dict[str, Packed]:
    """Decode what the cache lacks of two splits, and mend what is damaged in it; what was done, by split.

    Args:
        train: rows with the column `image`, not decoded.
        validation: likewise.
        config: of a model; it names the preparation of pictures.
        augmentation: as build_train_transform takes it.
        progress: shows how far it is.

    Raises:
        DataError: as pack_pictures.
    """
    processor = TimmWrapperImageProcessor(config.pretrained_cfg, architecture=config.architecture)
    decoders = {
        # What is packed comes before all that the seed decides.
        "train": (train, build_train_transform(augmentation, processor, seed=0)),
        "validation": (validation, ValidationTransform(processor)),
    }
    return {
        name: pack_pictures(rows, decoder, progress=progress, verify=True)
        for name, (rows, decoder) in decoders.items()
    }
