"""Blocks of tokens: every token once, no padding, documents kept apart, masks of the tokenizer's own."""

import datasets
import numpy as np
import pytest
import torch

from hf_tasks.data.order import ExampleKey
from hf_tasks.data.portions import pieces_of
from hf_tasks.tasks.language_model.blocks import (
    NO_LABEL,
    CausalBlocks,
    MaskedBlocks,
    collate,
    pack,
    positions_of,
)
from hf_tasks.tasks.language_model.losses import nats_of_blocks, token_loss
from hf_tasks.tasks.language_model.model import build_from_scratch, keeps_boundaries
from hf_tasks.tasks.language_model.settings import FromScratch

DOCUMENTS = [f"document {row} about {'snow ' * (row % 5)}and rain" for row in range(60)] + ["ünicode"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache of our own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def causal():
    torch.manual_seed(0)
    return build_from_scratch(FromScratch(vocab_size=300, hidden_size=16, layers=1, heads=2, block_size=16),
                              DOCUMENTS, is_causal=True)  # fmt: skip


@pytest.fixture(scope="module")
def masked():
    torch.manual_seed(0)
    return build_from_scratch(FromScratch(vocab_size=300, hidden_size=16, layers=1, heads=2, block_size=16),
                              DOCUMENTS, is_causal=False)  # fmt: skip


@pytest.fixture
def rows():
    return datasets.Dataset.from_dict({"text": DOCUMENTS})


def test_the_tokens_are_the_text_with_a_boundary_around_each_document(rows, causal):
    packed = pack(rows, causal)

    parts = causal.tokenizer.decode(packed.tokens.tolist()).split("<|endoftext|>")
    assert parts == ["", *DOCUMENTS, ""]
    assert packed.text_bytes == len("".join(f"{text}\n" for text in DOCUMENTS).encode())


def test_long_documents_are_tokenized_in_pieces_of_whole_words(rows, causal, monkeypatch, tmp_path):
    whole = pack(rows, causal)
    monkeypatch.setattr("hf_tasks.data.portions.CHARACTERS_AT_ONCE", 20)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)

    cut = pack(rows, causal)

    np.testing.assert_array_equal(cut.tokens, whole.tokens)
    assert list(pieces_of(DOCUMENTS[2])) == ["document 2 about", " snow snow and rain"]
    assert list(map(len, pieces_of("x" * 45))) == [20, 20, 5]


def test_a_second_call_reads_what_the_first_wrote(rows, causal, monkeypatch):
    first = pack(rows, causal)
    monkeypatch.setattr("hf_tasks.tasks.language_model.blocks._write_tokens", None)

    second = pack(rows, causal)

    np.testing.assert_array_equal(first.tokens, second.tokens)


@pytest.mark.parametrize("left_out", range(2))  # of one of these the last block is not full
def test_every_token_but_the_first_is_a_label_once(rows, causal, left_out):
    packed = pack(rows.select(range(len(rows) - left_out)), causal)
    blocks = CausalBlocks(packed, causal, keep_rest=True, positions=True)

    labels = torch.cat([blocks[block]["labels"] for block in range(len(blocks))])

    np.testing.assert_array_equal(labels[labels != NO_LABEL], packed.tokens[1:])
    assert (labels == NO_LABEL).sum() == -len(packed.tokens[1:]) % 16


def test_the_last_block_of_masked_tokens_hides_its_padding(masked):
    packed = pack(datasets.Dataset.from_dict({"text": ["a b c d e f g h i", "j"]}), masked)
    blocks = MaskedBlocks(packed, masked, keep_rest=True, probability=0.3, seed=0)

    attended = torch.cat([blocks[block]["attention_mask"] for block in range(len(blocks))])

    count = len(packed.tokens)
    assert count % 16
    assert attended.tolist() == [1] * count + [0] * (-count % 16)


def test_blocks_to_train_on_have_no_padding(rows, causal):
    packed = pack(rows, causal)
    blocks = CausalBlocks(packed, causal, keep_rest=False, positions=True)

    assert len(blocks) == (len(packed.tokens) - 1) // 16
    assert all((blocks[ExampleKey(0, block)]["labels"] != NO_LABEL).all() for block in range(len(blocks)))


def test_positions_start_anew_with_each_document():
    assert positions_of(np.array([5, 6, 0, 7, 8, 0, 0, 9]), 0).tolist() == [0, 1, 0, 1, 2, 0, 0, 1]


def test_a_packed_document_costs_what_it_costs_alone(rows, causal):
    blocks = CausalBlocks(pack(rows, causal), causal, keep_rest=True, positions=True)
    item = blocks[3]
    start = int((item["position_ids"] == 0).nonzero()[-1])

    model = causal.model.eval()
    with torch.inference_mode():
        packed = model(input_ids=item["input_ids"][None], position_ids=item["position_ids"][None],
                       use_cache=False).logits[0, start:]  # fmt: skip
        alone = model(input_ids=item["input_ids"][None, start:], use_cache=False).logits[0]

    assert start > 0
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=0)
    assert keeps_boundaries(causal)


def test_masks_are_the_tokenizers_own_and_the_rest_of_a_block_is_as_it_was(rows, masked):
    packed = pack(rows, masked)
    blocks = MaskedBlocks(packed, masked, keep_rest=False, probability=0.3, seed=0)

    batch = collate([blocks[ExampleKey(0, block)] for block in range(len(blocks))])

    original = torch.from_numpy(packed.tokens[: 16 * len(blocks)].astype(np.int64)).reshape(-1, 16)
    is_label = batch["labels"] != NO_LABEL
    boundary = masked.tokenizer.eos_token_id
    torch.testing.assert_close(batch["input_ids"][~is_label], original[~is_label])
    torch.testing.assert_close(batch["labels"][is_label], original[is_label])
    assert not (original[is_label] == boundary).any()
    share = is_label.sum() / (original != boundary).sum()
    assert share.item() == pytest.approx(0.3, abs=0.05)
    is_masked = batch["input_ids"][is_label] == masked.tokenizer.mask_token_id
    assert is_masked.float().mean().item() == pytest.approx(0.8, abs=0.08)
    is_replaced = ~is_masked & (batch["input_ids"][is_label] != batch["labels"][is_label])
    assert is_replaced.float().mean().item() == pytest.approx(0.1, abs=0.05)


def test_masks_change_with_the_epoch_alone(rows, masked):
    blocks = MaskedBlocks(pack(rows, masked), masked, keep_rest=False, probability=0.3, seed=0)

    first, again, later = blocks[ExampleKey(0, 1)], blocks[ExampleKey(0, 1)], blocks[ExampleKey(1, 1)]

    torch.testing.assert_close(first, again)
    assert (first["labels"] != later["labels"]).any()


def test_text_that_is_shorter_than_a_block_is_one_padded_block(causal):
    packed = pack(datasets.Dataset.from_dict({"text": ["a"]}), causal)

    blocks = CausalBlocks(packed, causal, keep_rest=False, positions=False)

    assert len(blocks) == 1
    assert (blocks[0]["labels"] != NO_LABEL).sum() == 2  # the letter and the end


def test_losses_of_cut_batches_add_up_to_the_mean_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 5, 7, generator=generator)
    labels = torch.randint(7, (4, 5), generator=generator)
    labels[2, 1:] = NO_LABEL

    class Outputs:
        def __init__(self, part):
            self.logits = part

    count = (labels != NO_LABEL).sum()
    parts = [token_loss(Outputs(logits[i : i + 2]), labels[i : i + 2], count) for i in (0, 2)]
    nats, tokens = nats_of_blocks(logits, labels)

    picked = [-logits[i, j].log_softmax(-1)[labels[i, j]] for i in range(4) for j in range(5)
              if labels[i, j] != NO_LABEL]  # fmt: skip
    wanted = torch.stack(picked).mean()
    torch.testing.assert_close(sum(parts), wanted)
    torch.testing.assert_close(token_loss(Outputs(logits), labels), wanted)
    torch.testing.assert_close(nats.sum() / tokens.sum(), wanted)
