"""What separates a photograph from a drawing, a rendering or a screenshot, as numbers from pixels.

A sensor leaves noise everywhere, optics leave no perfectly flat areas and few exactly repeated colours, and edges in a
scene spread over several pixels. Drawn pictures have flat areas, few colours, one-pixel edges and clean gradients.
Everything is measured on at most `FEATURE_PX` pixels on the long side, so that a size is no clue.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.models.quality import block_deviation, luminance, noise_sigma
from curation.models.scorer import Pixels, within

Plane = NDArray[np.float32]

FEATURE_PX = 512
FEATURES = (
    "log_colours_24bit",
    "log_colours_12bit",
    "top1_colour_share",
    "top8_colour_share",
    "top32_colour_share",
    "equal_neighbour_share",
    "flat_block_share",
    "exact_flat_block_share",
    "low_block_share",
    "log_noise",
    "log_residual_median",
    "residual_kurtosis",
    "residual_zero_share",
    "noise_of_quiet_blocks",
    "noise_spread",
    "gradient_kurtosis",
    "gradient_mean",
    "gradient_top_share",
    "edge_sharp_share",
    "ramp_share",
    "saturation_mean",
    "saturation_std",
    "saturation_high_share",
    "white_share",
    "black_share",
    "luma_entropy",
    "luma_std",
    "hue_entropy",
    "channel_residual_correlation",
    "spectrum_slope",
    "spectrum_fit_error",
    "border_uniformity",
    "grey_share",
    "local_entropy",
)


def realism_features(pixels: Pixels) -> NDArray[np.float32]:
    """The numbers named in FEATURES for an RGB picture."""
    small = within(pixels, FEATURE_PX, least_px=16)
    grey = luminance(small)
    parts = {
        **_palette(small),
        **_flatness(grey),
        **_noise(grey),
        **_gradients(grey),
        **_colour(small, grey),
        **_structure(small, grey),
    }
    return np.array([parts[name] for name in FEATURES], dtype=np.float32)


def _palette(pixels: Pixels) -> dict[str, float]:
    """How many colours there are, how much the most frequent hold, how often a pixel equals its neighbour."""
    wide = pixels.astype(np.uint32)
    exact = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    coarse = ((wide[..., 0] >> 4) << 8) | ((wide[..., 1] >> 4) << 4) | (wide[..., 2] >> 4)
    shares = np.sort(np.bincount(coarse.ravel(), minlength=4096))[::-1] / coarse.size
    equal = 0.5 * float((exact[:, 1:] == exact[:, :-1]).mean()) + 0.5 * float((exact[1:] == exact[:-1]).mean())
    return {
        "log_colours_24bit": float(np.log(len(np.unique(exact)) / exact.size)),
        "log_colours_12bit": float(np.log((shares > 1e-4).sum())),
        "top1_colour_share": float(shares[0]),
        "top8_colour_share": float(shares[:8].sum()),
        "top32_colour_share": float(shares[:32].sum()),
        "equal_neighbour_share": equal,
    }


def _flatness(grey: Plane) -> dict[str, float]:
    deviation = block_deviation(grey, 8)
    return {
        "flat_block_share": float((deviation < 2.0).mean()),
        "exact_flat_block_share": float((deviation < 0.5).mean()),
        "low_block_share": float((deviation < 5.0).mean()),
    }


def _noise(grey: Plane) -> dict[str, float]:
    """The part of the picture that a 3x3 median takes away, everywhere and in the quietest tiles."""
    import cv2

    residual = grey - cv2.medianBlur(grey.astype(np.uint8), 3).astype(np.float32)
    size = np.abs(residual)
    spread = float(residual.std())
    quiet = np.sort(block_deviation(grey, 8).ravel())
    lowest = quiet[: max(1, len(quiet) // 5)]
    noise = block_deviation(residual, 16).ravel()
    return {
        "log_noise": float(np.log(noise_sigma(grey) + 0.1)),
        "log_residual_median": float(np.log(np.quantile(size, 0.6) + 0.1)),
        "residual_kurtosis": _log_kurtosis(residual),
        "residual_zero_share": float((size == 0).mean()),
        "noise_of_quiet_blocks": float(np.log(lowest.mean() + 0.1)),
        "noise_spread": float(noise.std() / (spread + 0.5)),
    }


def _log_kurtosis(x: NDArray[Any]) -> float:
    """log of the fourth standardised moment: 1.1 for Gaussian, larger for rare strong values among nothing."""
    centred = x.astype(np.float64) - x.mean()
    variance = float((centred**2).mean())
    return float(np.log((centred**4).mean() / variance**2)) if variance > 1e-6 else 5.0


def _gradients(grey: Plane) -> dict[str, float]:
    """How gradients are distributed, and how many edges are over within one pixel."""
    import cv2

    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0) / 4, cv2.Sobel(grey, cv2.CV_32F, 0, 1) / 4
    magnitude = np.hypot(dx, dy)
    step = np.abs(np.diff(grey, axis=1))
    strong = step > 40
    before, after = np.pad(step, ((0, 0), (1, 0)))[:, :-1], np.pad(step, ((0, 0), (0, 1)))[:, 1:]
    crisp = strong & (before < 0.2 * step) & (after < 0.2 * step)
    curvature = np.abs(cv2.Laplacian(grey, cv2.CV_32F))
    ordered = np.sort(magnitude.ravel())
    total = float(ordered.sum())
    return {
        "gradient_kurtosis": _log_kurtosis(dx),
        "gradient_mean": float(np.log(magnitude.mean() + 0.1)),
        "gradient_top_share": float(ordered[-max(1, len(ordered) // 20) :].sum() / total) if total > 0 else 1.0,
        "edge_sharp_share": float(crisp.sum() / max(int(strong.sum()), 20)),
        "ramp_share": float(((magnitude > 0.3) & (magnitude < 4) & (curvature < 1.5)).mean()),
    }


def _colour(pixels: Pixels, grey: Plane) -> dict[str, float]:
    import cv2

    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    saturation = hsv[..., 1].astype(np.float32) / 255.0
    colourful = saturation > 0.15
    hues = np.bincount((hsv[..., 0][colourful] // 5).ravel(), minlength=36)
    return {
        "saturation_mean": float(saturation.mean()),
        "saturation_std": float(saturation.std()),
        "saturation_high_share": float((saturation > 0.8).mean()),
        "grey_share": float((saturation < 0.03).mean()),
        "white_share": float((pixels.min(axis=2) >= 250).mean()),
        "black_share": float((pixels.max(axis=2) <= 5).mean()),
        "luma_entropy": _entropy(np.bincount(grey.astype(np.uint8).ravel(), minlength=256)),
        "luma_std": float(grey.std()) / 127.5,
        "hue_entropy": _entropy(hues),
    }


def _entropy(counts: NDArray[np.int64]) -> float:
    """Shannon entropy in bits; 0 for no counts."""
    total = counts.sum()
    if total == 0:
        return 0.0
    shares = counts[counts > 0] / total
    return float(-(shares * np.log2(shares)).sum())


def _structure(pixels: Pixels, grey: Plane) -> dict[str, float]:
    slope, error = _spectrum(grey)
    return {
        "channel_residual_correlation": _channel_correlation(pixels),
        "spectrum_slope": slope,
        "spectrum_fit_error": error,
        "border_uniformity": _border_uniformity(pixels),
        "local_entropy": _local_entropy(grey),
    }


def _spectrum(grey: Plane) -> tuple[float, float]:
    """Slope of log power over log frequency, about -2 in natural scenes, and the deviation from that line."""
    import cv2

    square = cv2.resize(grey, (256, 256), interpolation=cv2.INTER_AREA) * np.outer(np.hanning(256), np.hanning(256))
    power = np.abs(np.fft.fftshift(np.fft.fft2(square - square.mean()))) ** 2
    rows, columns = np.indices(power.shape) - 128
    radius = np.hypot(rows, columns).astype(np.int64).ravel()
    radial = np.bincount(radius, power.ravel()) / np.maximum(np.bincount(radius), 1)
    x, y = np.log(np.arange(4, 120)), np.log(radial[4:120] + 1.0)
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float((y - slope * x - intercept).std())


def _channel_correlation(pixels: Pixels) -> float:
    """Correlation of the fine detail of red and blue: near 1 where detail is drawn in grey, lower with sensor noise."""
    import cv2

    detail = pixels.astype(np.float32) - cv2.GaussianBlur(pixels, (0, 0), 1.0).astype(np.float32)
    red, blue = detail[..., 0].ravel(), detail[..., 2].ravel()
    spread = float(red.std() * blue.std())
    return float(((red - red.mean()) * (blue - blue.mean())).mean() / spread) if spread > 1e-3 else 1.0


def _border_uniformity(pixels: Pixels) -> float:
    """Share of the outermost frame within four grey levels of its median colour."""
    frame = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(np.int16)
    return float((np.abs(frame - np.median(frame, axis=0)).max(axis=1) <= 4).mean())


def _local_entropy(grey: Plane) -> float:
    """Median over 16x16 tiles of the entropy of 64 luminance levels, in bits."""
    levels = (grey / 4).astype(np.int64)
    rows, columns = levels.shape[0] // 16, levels.shape[1] // 16
    tiles = levels[: rows * 16, : columns * 16].reshape(rows, 16, columns, 16).transpose(0, 2, 1, 3).reshape(-1, 256)
    return float(np.median([_entropy(np.bincount(tile, minlength=64)) for tile in tiles]))
