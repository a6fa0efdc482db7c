"""The head on |u - v|: one linear layer, whose sigmoid is the probability that two texts belong together.

Axes: B batch, D width of the embeddings.
"""

from torch import Tensor, nn


class DifferenceHead(nn.Module):
    """Scores a pair by the element-wise distance of its embeddings."""

    def __init__(self, width: int) -> None:
        """Start at random.

        Args:
            width: of the embeddings.
        """
        super().__init__()
        self.linear = nn.Linear(width, 1)

    def forward(self, first_BD: Tensor, second_BD: Tensor) -> Tensor:
        """Logits of shape (B,)."""
        return self.linear((first_BD - second_BD).abs()).squeeze(-1)
