"""The report in a real browser: it shows something, at desktop and at phone width, without the network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_samples import every_section, jpeg, small_run
from sklearn.datasets import load_sample_images

from components.report_page import ReportInput, StepSummary, render_report

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH (Debian: apt install chromium)")

QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


def screenshot(page: str, folder: Path, width: int, height: int) -> np.ndarray:
    """The page's pixels [H,W,3]. The host resolver is cut off, so nothing could be fetched."""
    source, target = folder / "page.html", folder / f"shot_{width}.png"
    source.write_text(page, encoding="utf-8")
    command = [
        str(CHROMIUM),
        *QUIET,
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={folder / f'profile_{width}'}",
        f"--window-size={width},{height}",
        f"--screenshot={target}",
        source.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert target.exists(), done.stderr[-2000:]
    with Image.open(target) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.fixture(scope="module")
def page() -> str:
    photos = [photo[::3, ::3] for photo in load_sample_images().images]
    sheet = {
        "type": "images",
        "title": "Kept",
        "items": [{"jpeg": jpeg(np.ascontiguousarray(p)), "caption": "photo.jpg"} for p in photos],
    }
    steps = [StepSummary("ingest", small_run()[0], False, {"title": "Kept", "sections": [sheet]})]
    steps += [StepSummary("filter", small_run()[2], False, every_section("words"))]
    return render_report(ReportInput("micro", "builtin", "2025-01-02T03:04:05+00:00", steps))


def test_the_report_renders_at_desktop_width(page: str, tmp_path: Path) -> None:
    shot = screenshot(page, tmp_path, 1280, 2600)
    assert shot.shape == (2600, 1280, 3)
    packed = shot.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, counts = np.unique(packed, return_counts=True)
    assert len(colours) > 2000, "photographs were not drawn"
    assert counts.max() < 0.93 * counts.sum(), "the page is nearly blank"
    accent = (np.abs(shot.astype(int) - (0x28, 0x62, 0xC9)).max(axis=2) <= 2).sum()
    assert accent > 5000, "bars and funnel are not drawn in the accent colour"


def test_a_phone_sees_no_sideways_scroll(page: str, tmp_path: Path) -> None:
    """The page's own width, written into its title by a script, is the window's."""
    probe = "<script>document.title = document.documentElement.scrollWidth + ' of ' + innerWidth</script>"
    source = tmp_path / "probe.html"
    source.write_text(page.replace("</body>", probe + "</body>"), encoding="utf-8")
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,900", "--dump-dom"]
    done = subprocess.run([*command, source.as_uri()], capture_output=True, text=True, timeout=90)
    title = done.stdout.split("<title>")[1].split("</title>")[0]
    width, window = (int(n) for n in title.split(" of "))
    assert width <= window
