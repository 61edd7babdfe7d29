"""A training step of the same U-Net in PyTorch, for `benchmarks.training`: needs PyTorch and NumPy alone.

Run: python -m benchmarks.torch_step '{"widths": [16, 32], ...}' [--channels-last]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional

DICE_SMOOTHING = 50.0


class Block(nn.Module):  # type: ignore[misc]  # PyTorch is not in the environment that types are checked in
    """Convolution, normalisation, rectifier."""

    def __init__(self, channels: int, width: int, size: int = 3, strides: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (size - 1) // 2
        self.conv = nn.Conv2d(channels, width, size, strides, padding, dilation, bias=False)
        self.norm = nn.BatchNorm2d(width, eps=1e-3, momentum=0.03)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give (N, width, Y, X)."""
        return functional.relu(self.norm(self.conv(x)))


class UNet(nn.Module):  # type: ignore[misc]
    """The network of `training/network.py`, layer by layer."""

    def __init__(self, widths: list[int], channels: int, windows: list[list[float]]) -> None:
        super().__init__()
        self.windows = windows
        self.stem = Block(channels * len(windows), widths[0], size=4, strides=2)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = widths[0]
        for width in widths[:-1]:
            self.down.append(nn.Sequential(Block(before, width), Block(width, width)))
            before = width
        last = widths[-1]
        self.bottom = nn.Sequential(Block(before, last), Block(last, last, dilation=2))
        before = last
        for depth in reversed(range(len(widths) - 1)):
            width = widths[depth]
            blocks = [Block(before + width, width)] + ([Block(width, width)] if depth else [])
            self.up.append(nn.Sequential(*blocks))
            before = width
        self.logit = nn.Conv2d(before, 1, 1)

    def forward(self, hu: torch.Tensor) -> torch.Tensor:
        """Give logits (N, Y, X) of HU (N, C, Y, X)."""
        scaled = [((hu - low) * (2.0 / (high - low)) - 1.0).clamp(-1.0, 1.0) for low, high in self.windows]
        x = self.stem(torch.cat(scaled, dim=1))
        skips = []
        for blocks in self.down:
            x = blocks(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for blocks in self.up:
            x = blocks(torch.cat([functional.interpolate(x, scale_factor=2), skips.pop()], dim=1))
        logits = functional.interpolate(self.logit(x), scale_factor=2, mode="bilinear", align_corners=False)
        return logits[:, 0]


def loss_of(logits: torch.Tensor, blood: torch.Tensor) -> torch.Tensor:
    """Give twice the cross-entropy and the Dice loss of the batch."""
    probability = torch.sigmoid(logits)
    overlap, both = (probability * blood).sum(), probability.sum() + blood.sum()
    dice = 1.0 - (2.0 * overlap + DICE_SMOOTHING) / (both + DICE_SMOOTHING)
    return 2.0 * functional.binary_cross_entropy_with_logits(logits, blood) + dice


def main() -> None:
    """Print the median seconds of a step."""
    shape: dict[str, Any] = json.loads(sys.argv[1])
    layout = torch.channels_last if "--channels-last" in sys.argv else torch.contiguous_format
    network = UNet(shape["widths"], shape["channels"], shape["windows"]).to(memory_format=layout)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    size = tuple(shape["crop"])
    hu = (200.0 * torch.rand(shape["batch"], shape["channels"], *size) - 50.0).to(memory_format=layout)
    blood = (torch.rand(shape["batch"], *size) > 0.98).float()
    times = []
    for _ in range(shape["steps"] + shape["before"]):
        started = time.perf_counter()
        optimiser.zero_grad()
        loss = loss_of(network(hu), blood)
        loss.backward()
        optimiser.step()
        loss.item()
        times.append(time.perf_counter() - started)
    print(json.dumps({"step_s": statistics.median(times[shape["before"] :])}))


if __name__ == "__main__":
    main()
