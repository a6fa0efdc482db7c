"""Pruning: which weights go, what stays zero, and what is saved."""

import copy

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
from transformers.pytorch_utils import Conv1D

from hf_tasks.callbacks.pruning import (
    Prune,
    compute_sparsity,
    prunable_layers,
    prune_layer,
    scheduled_share,
)
from hf_tasks.errors import UserError


class TinyModel(nn.Module):
    """Two layers and a loss, as the Trainer calls them."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x, labels):
        logits = self.head(self.body(x).relu())
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def rows(count=48):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 8, generator=generator)
    return [{"x": row, "labels": int(row[:3].argmax())} for row in x]


def train(folder, callback, **arguments):
    torch.manual_seed(0)
    model = TinyModel()
    args = TrainingArguments(
        str(folder),
        per_device_train_batch_size=16,
        num_train_epochs=arguments.pop("num_train_epochs", 4),
        learning_rate=0.05,
        save_strategy="epoch",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, args, train_dataset=rows(), eval_dataset=rows(), callbacks=[callback])
    trainer.train(**arguments)
    return trainer


def test_l1_removes_the_smallest_weights():
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[0.1, -3.0, 0.2, 2.0]])

    prune_layer(layer, method="l1", amount=0.5)

    assert layer.weight.tolist() == [[0.0, -3.0, 0.0, 2.0]]


def test_structured_pruning_removes_whole_filters():
    layer = nn.Conv2d(1, 4, 2, bias=False)
    layer.weight.data = torch.tensor([3.0, 1.0, 4.0, 2.0]).view(4, 1, 1, 1).expand(4, 1, 2, 2).clone()

    prune_layer(layer, method="ln-structured", amount=0.5)

    assert [bool(filter_.any()) for filter_ in layer.weight] == [True, False, True, False]


def test_the_filters_of_a_transposed_linear_layer_are_its_columns():
    layer = Conv1D(4, 2)
    layer.weight.data = torch.tensor([[3.0, 1.0, 4.0, 2.0], [3.0, 1.0, 4.0, 2.0]])

    prune_layer(layer, method="ln-structured", amount=0.5)

    assert layer.weight.tolist() == [[3.0, 0.0, 4.0, 0.0]] * 2


def test_a_language_model_is_pruned_in_its_blocks_and_keeps_its_token_embeddings():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2))

    names = set(prunable_layers(model, None))

    blocks = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert names == {f"transformer.h.0.{name}" for name in blocks}


@pytest.mark.parametrize("method", ["l1", "random", "ln-structured"])
def test_a_second_pruning_adds_to_the_first(method):
    torch.manual_seed(0)
    layer = nn.Linear(10, 20)
    prune_layer(layer, method=method, amount=0.3)
    first = layer.weight == 0

    prune_layer(layer, method=method, amount=0.6)

    assert (layer.weight == 0).float().mean() == pytest.approx(0.6)
    assert ((layer.weight == 0) | ~first).all()


def test_pruning_leaves_no_mask_behind():
    layer = nn.Linear(10, 20)

    prune_layer(layer, method="l1", amount=0.5)

    assert set(layer.state_dict()) == {"weight", "bias"}
    assert not layer._forward_pre_hooks
    copy.deepcopy(layer)  # refused by torch while a mask is attached


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("constant", [1, 1, 1]), ("linear", [0.5, 1, 1]), ("cubic", [0.875, 1, 1])],  # 1 - (1 - 1/2)^3
)
def test_the_amount_grows_as_the_schedule_says(kind, expected):
    shares = [scheduled_share(epoch, last=2, kind=kind) for epoch in (1, 2, 3)]

    assert shares == pytest.approx(expected)


def test_a_pattern_that_fits_no_layer_is_refused():
    with pytest.raises(UserError, match=r"pruning.layers: no layer 'tail'; wanted .* such as body, head"):
        prunable_layers(TinyModel(), ["tail"])


def test_zeros_survive_training_and_are_told(tmp_path):
    trainer = train(tmp_path, Prune(method="l1", amount=0.5, layers=["body"]))

    assert compute_sparsity(trainer.model, ["body"]) == pytest.approx(0.5)
    assert compute_sparsity(trainer.model, ["head"]) == 0
    assert trainer.evaluate()["eval_sparsity"] == pytest.approx(0.5)


def test_pruning_at_the_end_changes_nothing_before(tmp_path):
    plain = train(tmp_path / "plain", TrainerCallback()).model.state_dict()

    pruned = train(tmp_path / "pruned", Prune(method="l1", amount=0.5, at="end")).model.state_dict()

    for name in ("body.weight", "head.weight"):
        is_kept = pruned[name] != 0
        assert is_kept.float().mean() == pytest.approx(0.5)
        assert torch.equal(pruned[name][is_kept], plain[name][is_kept])


@pytest.mark.parametrize("method", ["l1", "random"])
def test_a_resumed_run_prunes_as_an_uninterrupted_one(tmp_path, method):
    whole = train(tmp_path / "whole", Prune(method=method, amount=0.6))

    resumed = train(
        tmp_path / "resumed",
        Prune(method=method, amount=0.6),
        resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"),
    )

    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
