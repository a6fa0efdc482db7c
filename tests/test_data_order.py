"""The order of an epoch, also of one that several processes resume in the middle."""

import pytest
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import BatchSampler, DataLoader
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_tasks.data.order import EpochOrder, FollowEpoch, epoch_order

ROWS, BATCH = 24, 3


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_resumed_epoch_goes_on_in_its_own_order(tmp_path, processes, accumulated):
    """The second epoch, after one of its optimizer steps; as transformers 5 resumes."""
    batches = ROWS // BATCH // processes
    arguments = TrainingArguments(
        output_dir=str(tmp_path), gradient_accumulation_steps=accumulated, use_cpu=True, report_to="none"
    )
    state = TrainerState(global_step=batches // accumulated + 1)
    seen: set[int] = set()

    for process in range(processes):
        order = BatchSampler(EpochOrder(ROWS, seed=5), BATCH, drop_last=False)
        whole = prepare_data_loader(
            DataLoader(list(range(ROWS)), batch_sampler=order),
            num_processes=processes,
            process_index=process,
        )
        FollowEpoch().on_epoch_begin(arguments, state, TrainerControl(), train_dataloader=whole)
        left = skip_first_batches(whole, accumulated)
        left.set_epoch(1)
        seen |= {row for rows in left for row in rows.tolist()}

    assert seen == set(list(epoch_order(ROWS, seed=5, epoch=1))[accumulated * processes * BATCH :])


def test_seed_and_epoch_each_change_the_order():
    orders = {tuple(epoch_order(ROWS, seed=seed, epoch=epoch)) for seed in (5, 6) for epoch in (0, 1)}

    assert len(orders) == 4
    assert {tuple(sorted(order)) for order in orders} == {tuple(range(ROWS))}
