"""Batches in which no text stands twice, for losses that take the other texts of a batch as negatives."""

from collections.abc import Iterator, Sequence

from torch.utils.data import BatchSampler

from hf_tasks.data.order import EpochOrder


class DistinctBatches(BatchSampler):
    """Batches without a text in two rows; as many an epoch as there would be without that rule.

    Each row goes into the first batch that has room and none of its texts. A row that fits nowhere is left
    out of the epoch; the next one has another order.
    """

    def __init__(
        self, sampler: EpochOrder, batch_size: int, drop_last: bool, *, texts: Sequence[Sequence[str]]
    ) -> None:
        """Keep the texts as numbers.

        Args:
            sampler: the order of the rows.
            batch_size: rows a batch.
            drop_last: leave out batches that are not full.
            texts: those of each row.
        """
        super().__init__(sampler, batch_size, drop_last)
        numbers: dict[str, int] = {}
        self._texts = [frozenset(numbers.setdefault(text, len(numbers)) for text in row) for row in texts]

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
                    if len(batches[batch]) == self.batch_size:
                        del has_room[place]
                    break
        if self.drop_last:
            batches = [batch for batch in batches if len(batch) == self.batch_size]
        yield from batches
