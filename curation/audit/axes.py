"""Numbers as people read them, and the scales charts are drawn on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Number = int | float

# Beyond this ratio of largest to smallest a linear axis shows one value and a flat line.
LOG_RATIO = 50.0


def finite(values: Iterable[Number | None]) -> list[float]:
    """The values that can be drawn: no null, no NaN, no infinity."""
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def number(value: Number | None, digits: int = 4) -> str:
    """A value in full: 12,345 for integers, `digits` significant digits for the rest, an en dash for null."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (math.isfinite(value) and value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def short_number(value: Number) -> str:
    """A value for a tick or a tight place: 12k, 3.4M, 0.05, 1e-05."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * (1 if limit > 1e3 else 10):
            return f"{value / limit:.3g}{suffix}"
    return number(value, 3)


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.42 s, 12.3 s, 4 min 05 s, 2 h 10 min."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def byte_size(n_bytes: int) -> str:
    """Bytes in decimal units: 812 B, 3.4 MB, 1.2 TB."""
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values (1, 2 or 5 times a power of ten) inside [low, high]."""
    if high <= low:
        return [low]
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [0.0 if i == 0 else float(f"{i * step:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten inside [low, high]; with 2 and 5 between them where that leaves fewer than three."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = [10.0**e for e in exponents if low <= 10.0**e <= high]
    if len(decades) > 6:
        return decades[:: math.ceil(len(decades) / 6)]
    if len(decades) >= 3:
        return decades
    return [m * 10.0**e for e in exponents for m in (1, 2, 5) if low <= m * 10.0**e <= high] or [low]


def wants_log(values: Sequence[float]) -> bool:
    """Whether a log axis reads better: all positive, and the range spans more than LOG_RATIO."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > LOG_RATIO


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] onto pixels [start, end]; logarithmic when asked (then low > 0)."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values inside the range."""
        return log_ticks(self.low, self.high) if self.log else nice_ticks(self.low, self.high, count)
