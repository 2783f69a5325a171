"""A picture that a later step flags is unrecognisable in the report, though an earlier step drew it as it was."""

import base64
import io
import json
import re

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image as pillow
from removal_roots import commit

from components.artifacts import Store
from components.report_step import ReportConfig
from components.run_step import run_step
from components.steps import STEPS
from curation.tables import DECISIONS, from_rows


def checkerboard(tone):
    squares = np.kron(np.indices((12, 16)).sum(0) % 2, np.ones((10, 10))).astype(np.uint8) * tone
    buffer = io.BytesIO()
    pillow.fromarray(np.stack([squares] * 3, -1)).save(buffer, "JPEG", quality=90)
    return base64.b64encode(buffer.getvalue()).decode()


def detail(encoded):
    """Mean difference of neighbouring pixels: large in a checkerboard, small in a blotch."""
    grey = np.asarray(pillow.open(io.BytesIO(base64.b64decode(encoded))).convert("L"), np.float64)
    return np.abs(np.diff(grey, axis=1)).mean()


def test_the_report_blurs_what_scores_or_filter_flagged(tmp_path):
    names = {"fine": 255, "scored": 245, "dropped": 235}
    items = [{"jpeg": checkerboard(tone), "caption": n, "image_id": n} for n, tone in names.items()]
    sheet = {"title": "Detections", "sections": [{"type": "images", "title": "Found", "items": items, "note": ""}]}
    commit(tmp_path, "detections", {}, files={"fragment.json": json.dumps(sheet).encode()})
    ids = ["fine", "scored", "dropped"]
    scores = pa.table({"image_id": ids, "nsfw": pa.array([0.1, 0.9, None], pa.float32())})
    filtered = pa.table({"image_id": ids, "keep": [True, True, False], "reason": [None, None, "unsafe"]})
    read = [("detections", "a" * 16)]
    commit(tmp_path, "scores", {"p": {"data": scores}}, read)
    commit(tmp_path, "filtered", {"p": {"data": filtered}}, read)
    card = commit(tmp_path, "dataset_card", {}, [("scores", "6" * 16), ("filtered", "8" * 16)])
    report = run_step(STEPS["report"], ReportConfig(), {"dataset_card": card}, str(tmp_path)).artifact
    page = report.file("report.html").decode()
    shown = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    assert len(shown) == 3
    assert [detail(picture) > 5 for picture in shown] == [True, False, False]
    assert Store(str(tmp_path)).latest("report").version == report.version


@pytest.mark.parametrize("kept", [True, False])
def test_a_page_of_training_that_names_no_picture_is_blurred_where_a_flagged_one_was_selected(tmp_path, kept):
    sheet = {"type": "images", "title": "Masked reconstruction", "items": [{"jpeg": checkerboard(255), "caption": "x"}]}
    scores = pa.table({"image_id": ["fine", "scored"], "nsfw": pa.array([0.1, 0.9], pa.float32())})
    read = [("scores", commit(tmp_path, "scores", {"p": {"data": scores}}).version)]
    decided = from_rows([{"image_id": "fine", "keep": True}, {"image_id": "scored", "keep": kept}], DECISIONS)
    read.append(("selection", commit(tmp_path, "selection", {"p": {"data": decided}}, read).version))
    page = {"title": "Pretraining", "sections": [sheet]}
    backbone = commit(tmp_path, "backbone", {}, read, files={"fragment.json": json.dumps(page).encode()})
    card = commit(tmp_path, "dataset_card", {}, [*read, ("backbone", backbone.version)])
    report = run_step(STEPS["report"], ReportConfig(), {"dataset_card": card}, str(tmp_path)).artifact
    (shown,) = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", report.file("report.html").decode())
    assert (detail(shown) > 5) == (not kept)
