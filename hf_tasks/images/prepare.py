"""The cache filled ahead of training: the pictures of both splits, decoded, and what was there checked."""

from typing import Any, Protocol

from transformers import TimmWrapperImageProcessor

from hf_tasks.contract.task import Packed, ProgressBar, Splits
from hf_tasks.images.cache import pack_pictures
from hf_tasks.images.transform import ValidationTransform, build_train_transform


class AugmentedPictures(Protocol):
    """Settings of a task with pictures."""

    @property
    def augmentation(self) -> str:
        """As build_train_transform takes it."""


def prepare_pictures(
    settings: AugmentedPictures, model: Any, splits: Splits, progress: ProgressBar
) -> dict[str, Packed]:
    """Decode what the cache lacks of both splits, and mend what is damaged in it; what was done, by split.

    Args:
        settings: of the recipe.
        model: its config names the preparation of pictures.
        splits: rows with the column `image`, not decoded.
        progress: shows how far it is.

    Raises:
        DataError: as pack_pictures.
    """
    config = model.config
    processor = TimmWrapperImageProcessor(config.pretrained_cfg, architecture=config.architecture)
    assert splits.train is not None
    decoders = {
        # What is packed comes before all that the seed decides.
        "train": (splits.train, build_train_transform(settings.augmentation, processor, seed=0)),
        "validation": (splits.validation, ValidationTransform(processor)),
    }
    return {
        name: pack_pictures(rows, decoder, progress=progress, verify=True)
        for name, (rows, decoder) in decoders.items()
    }
