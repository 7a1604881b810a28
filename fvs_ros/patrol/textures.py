"""Patterns for walls and floors: grey pictures around 1.0 that tint the surface's colour. Drawn with NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SIZE = 128
"""Pixels along each side of a pattern, which covers `PERIOD_M` of wall or floor and repeats seamlessly."""
PERIOD_M = 2.0

_ROW, _COLUMN = np.mgrid[0:SIZE, 0:SIZE]


def _noise(random: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth seamless noise of `cells` bumps a side, in -1..1."""
    spectrum = np.fft.fft2(random.normal(size=(SIZE, SIZE)))
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.fftfreq(SIZE)[None, :]) * SIZE
    smooth = np.fft.ifft2(spectrum * np.exp(-((frequency / cells) ** 2))).real
    return smooth / np.abs(smooth).max()


def _grid(random: np.random.Generator, rows: int, columns: int, shift: float, depth: float) -> np.ndarray:
    """Rows of tiles with dark joints, each row shifted by `shift` tiles, each tile of its own shade."""
    row_height, column_width = SIZE / rows, SIZE / columns
    row = (_ROW // row_height).astype(int)
    along = (_COLUMN + row * shift * column_width) % SIZE
    column = (along // column_width).astype(int) % columns
    shade = random.uniform(-0.07, 0.07, (rows, columns))[row % rows, column]
    joint = (_ROW % row_height < 3) | (along % column_width < 3)
    return np.where(joint, 1.0 - depth, 1.0 + shade)


def _tiles(random: np.random.Generator) -> np.ndarray:
    count = int(random.integers(4, 7))
    return _grid(random, count, count, 0.0, 0.28)


def _planks(random: np.random.Generator) -> np.ndarray:
    grain = np.repeat(_noise(random, 40)[:, :1], SIZE, axis=1) * 0.08
    return _grid(random, int(random.integers(5, 9)), 1, random.uniform(0.2, 0.5), 0.4) + grain


def _checker(random: np.random.Generator) -> np.ndarray:
    # An even number of cells, so that the pattern repeats without a seam.
    cells, (down, aside) = 2 * int(random.integers(2, 4)), random.integers(0, SIZE, 2)
    row, column = (_ROW + down) % SIZE * cells // SIZE, (_COLUMN + aside) % SIZE * cells // SIZE
    return np.where((row + column) % 2 == 0, 1.05, random.uniform(0.2, 0.35))


def _wave(random: np.random.Generator, along: np.ndarray, count: int) -> np.ndarray:
    return np.sin(2 * np.pi * (count * along / SIZE + random.uniform(0, 1)))


FAMILIES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "tiles": _tiles,
    "bricks": lambda random: _grid(random, 2 * int(random.integers(3, 6)), int(random.integers(3, 5)), 0.5, 0.35),
    "planks": _planks,
    "checker": _checker,
    "stripes": lambda random: np.where(
        _wave(random, _COLUMN, int(random.integers(3, 6))) > random.uniform(-0.3, 0.3), 1.08, 0.8
    ),
    "bands": lambda random: np.where(
        _wave(random, _ROW, int(random.integers(2, 4))) > random.uniform(0.2, 0.6), 0.74, 1.05
    ),
    "plain": lambda random: 1.0 + 0.05 * _noise(random, int(random.integers(2, 5))),
    "carpet": lambda random: 1.0 + 0.1 * _noise(random, 50) + 0.08 * _noise(random, int(random.integers(3, 7))),
    "concrete": lambda random: 1.0 + 0.12 * _noise(random, 6) + 0.06 * _noise(random, int(random.integers(15, 30))),
}
VARIANTS = 6
"""Of each family; `layout` reserves some of them for tests."""


def texture(family: str, variant: int) -> np.ndarray:
    """One pattern, uint8 [SIZE, SIZE, 3], 220 where the surface keeps its colour; the same on every call."""
    seed = np.random.SeedSequence([list(FAMILIES).index(family), variant])
    grey = FAMILIES[family](np.random.Generator(np.random.PCG64(seed)))
    return np.repeat((grey * 220.0).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
