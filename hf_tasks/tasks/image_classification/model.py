"""The classifier: a timm network in transformers' wrapper, so that plain transformers loads what is saved."""

import logging
from collections.abc import Sequence

from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

from hf_tasks.images.backbone import OpenedWeights, build_backbone, head_width

SHOWN_NAMES = 5

logger = logging.getLogger(__name__)


def build_classifier(
    opened: OpenedWeights, *, class_names: Sequence[str], is_multilabel: bool, drop_rate: float = 0.0
) -> TimmWrapperForImageClassification:
    """A classifier for the given classes, from the opened weights.

    The head of the weights is kept when they name the same classes in the same order; otherwise it
    starts anew, the rest is kept, and the log says so.

    Args:
        opened: what open_weights returned.
        class_names: class of each logit.
        is_multilabel: several classes per picture (sigmoid) instead of one (softmax).
        drop_rate: dropout before the classifier, in [0, 1).

    Raises:
        ModelError: the architecture takes no picture of this size, or the weights do not fit it.
    """
    names = tuple(class_names)
    keep_head = opened.class_names == names
    _tell_about_head(opened, names, keep_head)
    model_args = {**opened.model_args, **({"drop_rate": drop_rate} if drop_rate else {})}
    config = TimmWrapperConfig(
        architecture=opened.architecture,
        pretrained_cfg=_without_classes(opened),
        model_args=model_args or None,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        problem_type="multi_label_classification" if is_multilabel else "single_label_classification",
    )
    backbone = build_backbone(opened, classes=len(names), keep_head=keep_head)
    model = TimmWrapperForImageClassification(config)
    model.timm_model.load_state_dict(backbone.state_dict())
    return model


def _tell_about_head(opened: OpenedWeights, names: tuple[str, ...], keep_head: bool) -> None:
    width = head_width(opened)
    if width is None or keep_head:
        return
    known = f": {_first_of(opened.class_names)}" if opened.class_names else ""
    logger.info(
        "model: the classifier of the weights (%d classes%s) is left out, a new one for %d classes (%s) "
        "starts; all other weights are kept",
        width,
        known,
        len(names),
        _first_of(names),
    )


def _first_of(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")


def _without_classes(opened: OpenedWeights) -> dict[str, object]:
    """The configuration of timm less what belongs to the old head."""
    left_out = ("num_classes", "label_names", "label_descriptions")
    return {key: value for key, value in opened.pretrained_cfg.items() if key not in left_out}
