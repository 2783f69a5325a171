"""Headless Chromium for tests of pages; nothing leaves the machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH (Debian: apt install chromium)")

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


def title_after(page: str, script: str, folder: Path, width: int = 1280) -> str:
    """The title that `script` gives the page once it is loaded."""
    source = folder / "probe.html"
    source.write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={folder / 'probe'}", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run([*command, source.as_uri()], capture_output=True, text=True, timeout=90)
    return done.stdout.split("<title>")[1].split("</title>")[0]
