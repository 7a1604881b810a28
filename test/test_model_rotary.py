from __future__ import annotations

import pytest
import torch

from fvs_ros.model.rotary import rotate, signed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_published_formula(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 5, 3, 8, generator=generator).to(dtype)
    angles = torch.randn(5, 1, 4, generator=generator).repeat(1, 1, 2)
    first, second = states.float().chunk(2, dim=-1)
    expected = states.float() * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()
    turned = rotate(states, angles.cos(), signed(angles.sin()))
    assert turned.dtype == torch.float32
    torch.testing.assert_close(turned, expected)


def test_lengths_stay_and_no_angle_changes_nothing() -> None:
    states = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    angles = torch.tensor([0.3, 1.2, -2.0, 0.3, 1.2, -2.0])
    turned = rotate(states, angles.cos(), signed(angles.sin()))
    torch.testing.assert_close(turned.norm(dim=-1), states.norm(dim=-1))
    assert torch.equal(rotate(states, torch.ones(6), signed(torch.zeros(6))), states)
