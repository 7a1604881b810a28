"""Conversations that share a memory: what the blocks give must be what a mask over the whole sequence gives."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fvs_ros.training.shared_prefix import AskedAttention, Block, SharedPrefix, shared_prefix_attention

HEADS, KEY_HEADS, WIDTH = 4, 2, 8


def states(tokens: int, heads: int) -> torch.Tensor:
    return torch.randn(1, heads, tokens, WIDTH, dtype=torch.float64, requires_grad=True)


def visible(blocks: tuple[Block, ...]) -> torch.Tensor:
    """Who sees whom, bool [L, L], written out pair by pair."""
    owner: list[tuple[int, int]] = []
    for number, block in enumerate(blocks):
        owner += [(number, 0)] * block.prefix
        owner += [(number, 1 + asked) for asked, length in enumerate(block.lengths) for _ in range(length)]
    size = len(owner)
    return torch.tensor(
        [
            [owner[i][0] == owner[j][0] and owner[j][1] in (0, owner[i][1]) and j <= i for j in range(size)]
            for i in range(size)
        ]
    )


@pytest.mark.parametrize("blocks", [(Block(5, (4, 4, 4)),), (Block(3, (2,)), Block(7, (3, 1, 6, 2)), Block(1, (1, 1)))])
def test_blocks_are_a_mask_in_values_and_gradients(blocks: tuple[Block, ...]) -> None:
    torch.manual_seed(0)
    tokens = sum(block.tokens for block in blocks)
    query, key, value = states(tokens, HEADS), states(tokens, KEY_HEADS), states(tokens, KEY_HEADS)
    output, _ = shared_prefix_attention(nn.Module(), query, key, value, SharedPrefix(blocks))
    wide_key, wide_value = (state.repeat_interleave(HEADS // KEY_HEADS, 1) for state in (key, value))
    expected = functional.scaled_dot_product_attention(query, wide_key, wide_value, attn_mask=visible(blocks))
    torch.testing.assert_close(output, expected.transpose(1, 2))
    weights = torch.randn_like(output)
    found = torch.autograd.grad((output * weights).sum(), (query, key, value))
    wanted = torch.autograd.grad((expected.transpose(1, 2) * weights).sum(), (query, key, value))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_without_blocks_it_is_plain_causal_attention() -> None:
    torch.manual_seed(0)
    module = nn.Module()
    module.num_key_value_groups, module.is_causal = HEADS // KEY_HEADS, True  # type: ignore[assignment]
    query, key, value = states(6, HEADS), states(6, KEY_HEADS), states(6, KEY_HEADS)
    output, _ = shared_prefix_attention(module, query, key, value, None)
    wide_key, wide_value = (state.repeat_interleave(HEADS // KEY_HEADS, 1) for state in (key, value))
    expected = functional.scaled_dot_product_attention(query, wide_key, wide_value, is_causal=True)
    torch.testing.assert_close(output, expected.transpose(1, 2))


def test_an_observer_sees_what_chosen_tokens_attend_to_in_their_prefix() -> None:
    torch.manual_seed(0)
    blocks = (Block(3, (2,)), Block(5, (3, 2)))
    tokens = sum(block.tokens for block in blocks)
    query, key, value = states(tokens, HEADS), states(tokens, KEY_HEADS), states(tokens, KEY_HEADS)
    observer = AskedAttention([1], [torch.tensor([1]), torch.tensor([2, 3])])
    mask = SharedPrefix(blocks, observer)
    for layer in range(2):
        module = nn.Module()
        module.layer_idx = layer  # type: ignore[assignment]
        shared_prefix_attention(module, query * (1 + layer), key, value, mask)
    scores = 2 * query[0] @ key[0].repeat_interleave(HEADS // KEY_HEADS, 0).transpose(1, 2) * WIDTH**-0.5
    weights = scores.masked_fill(~visible(blocks), float("-inf")).softmax(-1)
    # The second block begins at token 5, its conversations at token 10.
    wanted = (weights[:, [4], :3], weights[:, [12, 13], 5:10])
    for (found,), expected in zip(observer.by_block, wanted, strict=True):
        torch.testing.assert_close(found, expected)
    assert torch.autograd.grad(observer.by_block[1][0].sum(), query)[0].abs().sum() > 0
