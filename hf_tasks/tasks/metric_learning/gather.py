"""The embeddings of all processes on each of them, with gradients that flow back to where they came from.

B pictures of a process, A pictures of all.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def gather_with_gradients(embeddings_BD: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings and labels of all processes, in the order of their ranks; unchanged where there is one.

    Each process then computes the same loss of the whole batch. The backward pass adds up the gradients of
    all processes, and DistributedDataParallel divides by their number: the weights get the gradient of that
    loss, as if one process had computed it.

    Args:
        embeddings_BD: of this process; all processes hold equally many.
        labels_B: their classes.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return embeddings_BD, labels_B
    embeddings = all_gather(embeddings_BD.contiguous())
    labels = [labels_B.new_empty(labels_B.shape) for _ in range(dist.get_world_size())]
    dist.all_gather(labels, labels_B.contiguous())
    return torch.cat(list(embeddings)), torch.cat(labels)
