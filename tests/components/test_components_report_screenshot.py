"""The pages in a real browser: the report is shown, at desktop and at phone width; the lineage page answers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, QUIET, needs_chromium, title_after
from PIL import Image
from report_samples import every_section, jpeg, manifest, small_run
from sklearn.datasets import load_sample_images

from components.lineage_page import render_lineage
from components.report_page import ReportInput, StepSummary, render_report

pytestmark = needs_chromium


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
    script = "document.title = document.documentElement.scrollWidth + ' of ' + innerWidth"
    width, window = (int(n) for n in title_after(page, script, tmp_path, width=500).split(" of "))
    assert width <= window


def test_long_addresses_leave_every_column_in_sight(tmp_path: Path) -> None:
    """The examples of rejects: the detail stands beside an address that has no place to break."""
    address = "https://images.example.org/" + "0123456789" * 8
    rows = [["too_small", address, "short side 120 px"], ["undecodable", address, "OSError " + "x" * 80]]
    table = {"type": "table", "title": "Examples", "columns": ["reason", "source", "detail"], "rows": rows}
    steps = [StepSummary("ingest", small_run()[0], False, {"title": "", "sections": [table]})]
    drawn = render_report(ReportInput("micro", "builtin", "2025-01-02T03:04:05+00:00", steps))
    script = """
      const frame = document.querySelector("#step-1 .scroll"), cells = [...frame.querySelectorAll("td:last-child")];
      const inside = cells.map((cell) => cell.getBoundingClientRect().right <= frame.getBoundingClientRect().right);
      document.title = [frame.scrollWidth <= frame.clientWidth, ...inside].join(" ");
    """
    assert title_after(drawn, script, tmp_path, width=1300) == "true true true"


def test_the_lineage_page_answers_clicks_and_searches(tmp_path: Path) -> None:
    """Click a node: its panel and kin; shift-click or pick another: what differs; search; draw the related alone."""
    run = small_run()
    other = manifest("ingest", "images", config={"seed": 7}, version="f" * 16)
    images, filtered = f"images={run[0]['version']}", f"filtered={run[2]['version']}"
    script = f"""
      const node = (key) => document.querySelector(`.node[data-key="${{key}}"]`);
      const click = (key, shiftKey) => node(key).dispatchEvent(new MouseEvent("click", {{ bubbles: true, shiftKey }}));
      const panel = document.getElementById("panel"), said = [];
      click("{filtered}");
      said.push(panel.querySelector("h2").textContent, document.querySelectorAll(".node.dim").length);
      document.getElementById("only").click();
      said.push(document.querySelectorAll(".node.away").length);
      document.getElementById("only").click();
      said.push(document.querySelectorAll(".node.away").length);
      click("{images}");
      click("images={"f" * 16}", true);
      const paths = [...panel.querySelectorAll("td:first-child")].map((cell) => cell.textContent);
      said.push(paths.join(" "));
      panel.querySelector("button").click();
      const pick = panel.querySelector("select");
      pick.value = "images={"f" * 16}";
      pick.dispatchEvent(new Event("change"));
      said.push([...panel.querySelectorAll("td:first-child")].map((cell) => cell.textContent).join(" "));
      const search = document.getElementById("search");
      search.value = "Detect";
      search.dispatchEvent(new Event("input"));
      said.push([...document.querySelectorAll(".node.hit")].map((g) => g.dataset.key.split("=")[0]).join(" "));
      document.title = said.join("|");
    """
    said = title_after(render_lineage([*run, other], focus=None), script, tmp_path).split("|")
    assert said == ["filtered", "1", "1", "0", "config.seed", "config.seed", "detections"]


def test_a_graph_of_three_hundred_shows_what_belongs_to_the_one_looked_for(tmp_path: Path) -> None:
    """It opens on the table of all; who searches one sees its kin lit there, or drawn large enough to be read."""
    root = manifest("ingest", "images")
    run = [root]
    for i in range(100):
        kept = manifest("filter", "filtered", [root], version=f"{i:016x}")
        run += [kept, manifest("pretrain", "backbone", [kept, root], version=f"{i:016x}")]
        run += [manifest("finetune", "pose", [run[-1]], version=f"{i:016x}")]
    script = """
      const drawn = () => [...document.querySelectorAll(".node:not(.away)")];
      const names = (found) => found.map((g) => g.dataset.key.replace(/=0+/, "")).sort().join(" ");
      const table = document.getElementById("versions"), said = [table.hidden];
      const search = document.getElementById("search");
      search.value = "backbone=0000000000000007";
      search.dispatchEvent(new Event("input"));
      search.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
      const seen = table.getBoundingClientRect(), at = document.querySelector(".cell.chosen").getBoundingClientRect();
      said.push(names([...document.querySelectorAll(".cell.kin")]), at.top >= seen.top && at.bottom <= seen.bottom);
      document.getElementById("only").click();
      const box = document.querySelector(".node.chosen").getBoundingClientRect();
      said.push(table.hidden, names(drawn()), box.width > 150);
      document.getElementById("whole").click();
      said.push(table.hidden);
      document.getElementById("whole").click();
      said.push(table.hidden, drawn().length);
      document.title = said.join("|");
    """
    said = title_after(render_lineage(run, focus=None), script, tmp_path).split("|")
    kin = f"backbone7 filtered7 images={root['version']} pose7"
    assert said == ["false", kin, "true", "true", kin, "true", "false", "true", "4"]
