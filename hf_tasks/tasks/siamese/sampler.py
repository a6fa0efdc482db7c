"""Batches in which no text stands twice, for losses that take the other texts of a batch as negatives."""

from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from hf_tasks.data.order import EpochOrder


class DistinctBatches(Sampler[list[int]]):
    """Batches without a text in two rows; as many in every epoch as there would be without that rule.

    Each row goes into the first batch that has room and none of its texts. A row that fits nowhere is left
    out of the epoch; the next one has another order. So batches may be short, and processes that share them
    take what comes: accelerate would skip short ones if this had a `batch_size`.
    """

    def __init__(
        self, sampler: EpochOrder, rows_a_batch: int, drop_last: bool, *, texts: Sequence[Sequence[str]]
    ) -> None:
        """Keep the texts as numbers.

        Args:
            sampler: the order of the rows.
            rows_a_batch: at most.
            drop_last: have no batch more than rows fill.
            texts: those of each row.
        """
        self.sampler, self.drop_last = sampler, drop_last
        self._rows_a_batch = rows_a_batch
        numbers: dict[str, int] = {}
        self._texts = [frozenset(numbers.setdefault(text, len(numbers)) for text in row) for row in texts]

    def __len__(self) -> int:
        """Number of batches."""
        full, rest = divmod(len(self.sampler), self._rows_a_batch)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of one epoch."""
        batches: list[list[int]] = [[] for _ in range(len(self))]
        texts_inside: list[set[int]] = [set() for _ in batches]
        has_room = list(range(len(batches)))
        for row in self.sampler:
            for place, batch in enumerate(has_room):
                if texts_inside[batch].isdisjoint(self._texts[row]):
                    batches[batch].append(row)
                    texts_inside[batch] |= self._texts[row]
                    if len(batches[batch]) == self._rows_a_batch:
                        del has_room[place]
                    break
        yield from batches
