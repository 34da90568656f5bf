"""TransUNet has the published weights, and its attention is the textbook's."""

import math

import torch
from torch import Tensor

from engines.networks.complexity import parameter_counts
from engines.networks.transunet import HEAD_WIDTH, HEADS, TransUNet, _Attention
from engines.networks.transunet import _Transformer as Transformer


def test_counts_are_the_published_ones() -> None:
    assert parameter_counts(TransUNet()) == {
        "total": 23_979_010,
        "trainable": 23_969_282,
        "non_trainable": 9_728,
    }


def test_attention_is_that_of_the_formula() -> None:
    torch.manual_seed(0)
    attention = _Attention(16)
    tokens = torch.randn(2, 6, 16)
    heads = [head_of(attention, tokens, index) for index in range(HEADS)]
    expected = attention.out(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(tokens), expected)


def test_without_positions_moved_pixels_give_moved_answers() -> None:
    torch.manual_seed(0)
    block = Transformer(16)
    x = torch.randn(1, 16, 4, 6)
    moved = block(x.roll((1, 2), dims=(2, 3)).flip(3))
    torch.testing.assert_close(moved, block(x).roll((1, 2), dims=(2, 3)).flip(3))


def test_every_pixel_of_the_bottleneck_sees_every_other() -> None:
    torch.manual_seed(0)
    block = Transformer(16)
    x = torch.randn(1, 16, 4, 4, requires_grad=True)
    block(x)[0, :, 0, 0].sin().sum().backward()
    assert (x.grad.abs().sum(dim=1) > 0).all()


def head_of(attention: _Attention, tokens: Tensor, index: int) -> Tensor:
    """Return one head's answer, (N, tokens, HEAD_WIDTH), worked out by hand."""
    part = slice(index * HEAD_WIDTH, (index + 1) * HEAD_WIDTH)
    query, key, value = (
        layer(tokens)[..., part]
        for layer in (attention.query, attention.key, attention.value)
    )
    scores = torch.einsum("nqc,nkc->nqk", query, key) / math.sqrt(HEAD_WIDTH)
    return torch.einsum("nqk,nkc->nqc", scores.softmax(dim=-1), value)
