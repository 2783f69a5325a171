"""dedup as a step: apart from evaluation sets, whose content counts, and on top of an earlier version of itself."""

import io

import pyarrow as pa
import pytest
from PIL import Image as pillow
from removal_roots import build_pool, commit, ingested, picture

from components.artifacts import ArtifactError, Store
from components.explain import why
from components.run_step import run_step
from components.steps import STEPS
from curation.images import decode
from curation.models.copy_descriptor import build_copy_descriptor
from curation.stages.dedup import DedupConfig
from curation.tables import DECISIONS, DETECTIONS, from_rows, scores_schema

NOBODY = {"boxes": [], "box_scores": [], "refined": []}


@pytest.fixture
def inputs(tmp_path):
    """images, detections, scores and filtered of a pool of eight pictures."""
    root = tmp_path / "root"
    parts = ingested(build_pool(tmp_path / "pool"))
    images = pa.concat_tables(part["images"] for part in parts.values())
    ids = images["image_id"].to_pylist()
    descriptor = build_copy_descriptor("builtin", {})
    vectors = [descriptor.embed([decode(d, min_side=44).pixels])[0].tolist() for d in images["bytes"].to_pylist()]
    scores = [{"image_id": i, "scored": True, "copy_embedding": v} for i, v in zip(ids, vectors)]
    made = {
        "images": parts,
        "detections": {"all": {"data": from_rows([{"image_id": i, **NOBODY} for i in ids], DETECTIONS)}},
        "scores": {"all": {"data": from_rows(scores, scores_schema(1, descriptor.dim))}},
        "filtered": {"all": {"data": from_rows([{"image_id": i, "keep": True} for i in ids], DECISIONS)}},
    }
    return root, {kind: commit(root, kind, tables) for kind, tables in made.items()}


def rows(artifact):
    """The decisions."""
    return sorted(artifact.read().to_pylist(), key=lambda row: row["image_id"])


def smaller(seed):
    buffer = io.BytesIO()
    pillow.open(io.BytesIO(picture(seed))).resize((48, 35)).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def test_a_copy_of_an_evaluation_picture_goes_and_why_says_of_which(inputs, tmp_path):
    root, given = inputs
    before = run_step(STEPS["dedup"], DedupConfig(descriptor="builtin"), given, str(root)).artifact
    assert before.manifest.metrics["kept"] == 8 and "evaluation_copies" not in before.manifest.tables
    held = tmp_path / "benchmark"
    held.mkdir()
    (held / "test_one.jpg").write_bytes(smaller(3))
    config = DedupConfig(descriptor="builtin", apart_from=(str(held),))
    apart = run_step(STEPS["dedup"], config, given, str(root)).artifact
    assert apart.version != before.version
    assert apart.manifest.metrics["dropped"] == {"evaluation_copy": 1}
    lines = [line.text for line in why(Store(str(root)), "3.jpg") if line.artifact.version == apart.version]
    assert len(lines) == 1 and lines[0].startswith("evaluation_copy: ")
    assert f"a copy of test_one.jpg in {held}" in lines[0]
    assert run_step(STEPS["dedup"], config, given, str(root)).reused
    (held / "test_two.jpg").write_bytes(smaller(5))
    again = run_step(STEPS["dedup"], config, given, str(root)).artifact
    assert again.version != apart.version and again.manifest.metrics["dropped"] == {"evaluation_copy": 2}


def test_a_run_on_top_of_an_earlier_one_gives_what_a_run_from_scratch_gives(inputs):
    root, given = inputs
    config = DedupConfig(descriptor="builtin", min_cosine=0.6)
    ids = sorted(given["filtered"].read()["image_id"].to_pylist())
    few = from_rows([{"image_id": i, "keep": i not in ids[:2]} for i in ids], DECISIONS)
    some = {**given, "filtered": commit(root, "filtered", {"all": {"data": few}}, version="f" * 16)}
    earlier = run_step(STEPS["dedup"], config, some, str(root)).artifact
    scratch = run_step(STEPS["dedup"], config, given, str(root)).artifact
    follow = config.model_copy(update={"previous": earlier.version})
    made = run_step(STEPS["dedup"], follow, given, str(root)).artifact
    assert made.version != scratch.version and rows(made) == rows(scratch) and len(rows(made)) == 8
    assert [(ref.role, ref.version) for ref in made.manifest.inputs if ref.role == "previous"] == [
        ("previous", earlier.version)
    ]
    other = follow.model_copy(update={"min_cosine": 0.65})
    with pytest.raises(
        ValueError, match=r"dedup\.min_cosine=0\.65, but .* was made with 0\.6.*set dedup\.min_cosine=0\.6"
    ):
        run_step(STEPS["dedup"], other, given, str(root))
    with pytest.raises(ArtifactError, match="no artifact, tag or version"):
        run_step(STEPS["dedup"], config.model_copy(update={"previous": "0" * 16}), given, str(root))
    old = commit(root, "deduped", {"all": {"data": scratch.read()}}, version="e" * 16)
    with pytest.raises(ValueError, match="left nothing to go on from"):
        run_step(STEPS["dedup"], config.model_copy(update={"previous": old.version}), given, str(root))
