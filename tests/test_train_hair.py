"""Hair that no frame shows stands as high as that at the head's outline."""

from __future__ import annotations

import torch

from being_rt.train.hair import HairOutline

MASK = torch.zeros(100, 100, dtype=torch.uint8)
MASK[50:] = 255  # the person fills the lower half


def outline(height: torch.Tensor, cosine: torch.Tensor, frames: int = 2) -> HairOutline:
    """Hair over a flat scalp at row 60: 1 mm stands for a pixel."""
    found = HairOutline(height)
    place = torch.stack([torch.full_like(height, 20.0), 60 - 1000 * height], 1)
    for _ in range(frames):
        found.add(place, cosine, MASK)
    return found


def test_unseen_hair_is_as_high_as_seen_hair() -> None:
    height = torch.linspace(0, 0.024, 1200)
    at_outline = torch.arange(1200) % 2 == 0
    share = outline(height, torch.where(at_outline, 0.1, -0.8)).share()
    assert (share[at_outline] == 1).all()  # what was seen tells for itself
    unseen, high = share[~at_outline], height[~at_outline]
    assert (unseen[high < 0.0078] == 1).all()
    assert (unseen[high > 0.0121] == 0).all()
    assert (unseen.diff() <= 0).all()


def test_without_an_outline_nothing_is_known() -> None:
    height = torch.linspace(0, 0.03, 600)
    away = torch.full_like(height, -0.9)
    assert (outline(height, away).share() == 1).all()
    beyond = HairOutline(height)
    beyond.add(torch.full((600, 2), -5.0), torch.zeros(600), MASK)  # outside the picture
    beyond.add(torch.full((600, 2), torch.inf), torch.zeros(600), MASK)
    assert (beyond.share() == 1).all()
    few = outline(height[::50], away[::50] + 0.9)
    assert (few.share() == 1).all()


def test_a_bald_model_has_none() -> None:
    nothing = outline(torch.zeros(0), torch.zeros(0))
    assert nothing.share().shape == (0,)


def test_hair_that_grows_again_higher_up_does_not_count() -> None:
    """A mask with a hole: whatever is above it cannot be told from what is below."""
    height = torch.linspace(0, 0.024, 1200)
    found = HairOutline(height)
    mask = MASK.clone()
    mask[:50] = 255
    mask[48:52] = 0
    place = torch.stack([torch.full_like(height, 20.0), 60 - 1000 * height], 1)
    found.add(place, torch.zeros_like(height), mask)
    found._seen[:] = False
    assert (found.share()[height > 0.0141] < 0.2).all()
