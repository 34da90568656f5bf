"""What an MR scanner makes of a slice: coils, k-space, thick slices and noise.

Values start at 0, which is air, and end with the brightest hundredth at about
``BRIGHT``, as those of real MR do when they are loaded.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from engines.train import augment, synthesis
from engines.train import lie as lies
from engines.train.lie import AXIAL, Lie

Image = NDArray[np.float32]

BRIGHT = 500.0

P_COIL, P_THICK, P_KSPACE = 0.75, 0.35, 0.6
"""How many slices are seen by coils behind the back, are thick from side to side, and
are coarser than their pixels."""


def received(image: Image, bone: Image, rng: Generator, lie: Lie = AXIAL) -> Image:
    """Return a slice (H, W) as a scanner would.

    Args:
        image: brightness of the tissues, from 0 on.
        bone: how much of each pixel is bone of the spine.
        rng: of every draw.
        lie: how the slice lies in the body.
    """
    image = image * sensitivity(bone, rng, lie)
    if rng.random() < P_THICK and lies.shows(lie.right):
        step = rng.uniform(1.8, 3.8)
        image = augment.coarse(image, lie.lateral, step, rng)
    if rng.random() < P_KSPACE:
        image = cut_off(image, rng.uniform(0.45, 1.0, 2))
    image = np.maximum(image, 0)
    bright = max(float(np.quantile(image[::2, ::2], 0.99)), 1e-6)
    image = noisy(image / bright, 0.04 * rng.random() ** 2, rng)
    scaled: Image = (image * np.float32(BRIGHT * rng.uniform(0.7, 1.3))).astype(
        np.float32
    )
    return scaled


def sensitivity(bone: Image, rng: Generator, lie: Lie = AXIAL) -> Image:
    """Return how strongly the coils receive each pixel, 1 at the spine.

    Coils behind the back hear the more of a tissue the nearer it lies to them.
    """
    shape = (bone.shape[0], bone.shape[1])
    log = rng.uniform(0, 0.3) * synthesis.field(rng, shape, rng.uniform(2, 4))
    if rng.random() < P_COIL and lies.shows(lie.anterior):
        ahead = lies.along(shape, lie.anterior)
        if bone.any():
            ahead = ahead - float((ahead * bone).sum() / bone.sum())
        depth = rng.uniform(25, 80)
        coil = rng.uniform(0.2, 1.4) * np.log1p(np.exp(-ahead / depth))
        log = log + coil - rng.uniform(0, 0.012) * np.maximum(ahead, 0)
    image: Image = np.exp(np.clip(log - log.mean(), -3, 3)).astype(np.float32)
    return image


def cut_off(image: Image, shares: NDArray[np.float64]) -> Image:
    """Return a slice of which k-space was sampled to a share of its rows and columns.

    Edges ring, as Gibbs says.
    """
    spectrum = np.fft.rfft2(image)
    rows = np.abs(np.fft.fftfreq(image.shape[0])) <= 0.5 * shares[0]
    columns = np.fft.rfftfreq(image.shape[1]) <= 0.5 * shares[1]
    spectrum *= rows[:, None] & columns
    back: Image = np.fft.irfft2(spectrum, s=image.shape).astype(np.float32)
    return back


def noisy(image: Image, deviation: float, rng: Generator) -> Image:
    """Return a slice with noise in both channels, of which the magnitude is taken."""
    real, other = rng.normal(0, deviation, (2, *image.shape)).astype(np.float32)
    if rng.random() < 0.4:
        real, other = (ndimage.gaussian_filter(n, 0.6) * 2.02 for n in (real, other))
    magnitude: Image = np.hypot(image + real, other)
    return magnitude
