"""The losses of text pairs: those of sentence-transformers, and binary cross entropy over the head.

Axes: B batch, D width of the embeddings.
"""

from collections.abc import Iterable

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses
from torch import Tensor, nn

from hf_tasks.tasks.siamese.head import DifferenceHead
from hf_tasks.tasks.siamese.model import PairModel
from hf_tasks.tasks.siamese.settings import (
    Contrastive,
    CoSent,
    CosineSimilarity,
    Loss,
    MultipleNegatives,
    OnlineContrastive,
)
from hf_tasks.tasks.siamese.settings import (
    DifferenceHead as DifferenceHeadSettings,
)


class DifferenceHeadLoss(nn.Module):
    """Binary cross entropy of a head on |u - v|; the head is trained with the encoder."""

    def __init__(self, model: SentenceTransformer, head: DifferenceHead) -> None:
        """Keep both, under the names that sentence-transformers' trainer looks for."""
        super().__init__()
        self.model = model
        self.head = head
        self.cross_entropy = nn.BCEWithLogitsLoss()

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """The mean over a batch of pairs.

        Args:
            sentence_features: model inputs of the first and of the second texts.
            labels: (B,), in [0, 1].
        """
        first_BD, second_BD = (self.model(features)["sentence_embedding"] for features in sentence_features)
        return self.cross_entropy(self.head(first_BD, second_BD), labels.float())


def build_loss(settings: Loss, model: PairModel) -> nn.Module:
    """The loss that a recipe names, around the model that it trains."""
    match settings:
        case CosineSimilarity():
            return losses.CosineSimilarityLoss(model.encoder)
        case Contrastive(margin=margin):
            return losses.ContrastiveLoss(model.encoder, margin=margin)
        case OnlineContrastive(margin=margin):
            return losses.OnlineContrastiveLoss(model.encoder, margin=margin)
        case CoSent(scale=scale):
            return losses.CoSENTLoss(model.encoder, scale=scale)
        case MultipleNegatives(scale=scale):
            return losses.MultipleNegativesRankingLoss(model.encoder, scale=scale)
        case DifferenceHeadSettings():
            assert model.head is not None
            return DifferenceHeadLoss(model.encoder, model.head)
