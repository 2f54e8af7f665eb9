"""Random affine maps of images, so that small networks do not learn one writer's hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from he_infer.zoo.recipes import Augmentation


def augment(images: Tensor, bounds: Augmentation, generator: torch.Generator) -> Tensor:
    """Each image rotated, scaled, sheared and moved at random; (B, C, H, W) in and out.

    Bilinear, black outside. All randomness comes from ``generator``.
    """
    count, _, height, width = images.shape
    # One draw in [-1, 1) per image for each of: angle, scale, shear, x and y translation.
    angle, scale, shear, move_x, move_y = (
        2 * torch.rand(5, count, generator=generator, dtype=images.dtype) - 1
    )
    angle = angle * math.radians(bounds.rotate_degrees)
    slope = torch.tan(shear * math.radians(bounds.shear_degrees))
    zoom = 1 / (1 + bounds.scale * scale)  # the grid maps output to input, hence the inverse
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    # Coordinates run over [-1, 1], so a pixel is 2 / size.
    shift_x = move_x * bounds.translate_pixels * 2 / width
    shift_y = move_y * bounds.translate_pixels * 2 / height
    rows_x = torch.stack([cos, cos * slope - sin, shift_x], dim=1)
    rows_y = torch.stack([sin, sin * slope + cos, shift_y], dim=1)
    maps = torch.stack([rows_x, rows_y], dim=1)  # (B, 2, 3)
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)
