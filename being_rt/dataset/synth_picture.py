"""What a sensor and a matting network do to a perfect picture and its coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import InvalidParameterError

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class PictureErrors:
    """Noise of the sensor, in linear light where white is 1, and errors of the mask. Defaults: a phone indoors."""

    read_noise: float = 0.001
    """Standard deviation in the dark."""
    shot_noise: float = 0.008
    """Standard deviation at white that the counting of photons adds; it grows as the square root of light."""
    mask_erosion: int = 0
    """Pixels that the mask's edge lies too far inside, and twice the deviation by which it is softened."""

    def __post_init__(self) -> None:
        for name in ("read_noise", "shot_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidParameterError(f"{name} must be 0 to 1, got {getattr(self, name)}")
        if not 0 <= self.mask_erosion <= 64:
            raise InvalidParameterError(f"mask_erosion must be 0 to 64 pixels, got {self.mask_erosion}")

    @classmethod
    def none(cls) -> PictureErrors:
        """A perfect sensor and mask."""
        return cls(read_noise=0.0, shot_noise=0.0, mask_erosion=0)


def noise_deviations(errors: PictureErrors) -> Float32:
    """Standard deviation [256], in 8-bit steps, of the noise on each sRGB value.

    Variance in linear light is ``read^2 + shot^2 L`` (Healey and Kondepudy, IEEE PAMI 16(3), 1994, equation 3), and
    the sRGB curve's slope (IEC 61966-2-1) takes it to the picture's own values.
    """
    value = np.arange(256) / 255
    linear = value <= 0.04045
    base = (value + 0.055) / 1.055
    light = np.where(linear, value / 12.92, base**2.4)
    slope = np.where(linear, 12.92, 1.055 / (2.4 * base**1.4))
    return (255 * slope * np.sqrt(errors.read_noise**2 + errors.shot_noise**2 * light)).astype(np.float32)


def noisy_picture(picture: UInt8, deviations: Float32, random: np.random.Generator) -> UInt8:
    """``picture`` [H, W, 3] with noise of :func:`noise_deviations`, rounded to 8 bits again."""
    if not deviations.any():
        return picture
    noise = random.standard_normal(picture.shape, np.float32)
    noise *= deviations[picture]
    noise += picture
    return np.clip(np.rint(noise, out=noise), 0, 255, out=noise).astype(np.uint8)


def mask_of(alpha: Float32, errors: PictureErrors) -> UInt8:
    """Coverage 0..1 [H, W] as an 8-bit mask, with the errors that a matting network makes at its edge."""
    mask = (alpha * 255 + 0.5).astype(np.uint8)
    if not errors.mask_erosion:
        return mask
    from PIL import Image, ImageFilter

    eroded = Image.fromarray(mask).filter(ImageFilter.MinFilter(2 * errors.mask_erosion + 1))
    return np.asarray(eroded.filter(ImageFilter.GaussianBlur(errors.mask_erosion / 2)))
