"""Audits end to end: the page in a browser, labels to a threshold that --config takes, rates by source and group."""

import base64
import io
import json
import re

import numpy as np
import pyarrow as pa
import pytest
from browser import needs_chromium, title_after
from click.testing import CliRunner
from PIL import Image as pillow
from removal_roots import commit

from components import audits
from components.artifacts import ArtifactError, Store
from components.audit_verdicts import calibrate_rule, origin, read_labels
from curation.audit.label_page import Shown, choices, label_page, yes_no
from curation.stages.balance import BalanceConfig
from curation.stages.filter import FilterConfig, rules
from curation.stages.filter import run as run_filter
from curation.tables import DETECTIONS, IMAGES, from_rows, scores_schema
from pipelines.chosen_settings import settings_of
from pipelines.cli import cli

N = 60


def jpeg(tone):
    buffer = io.BytesIO()
    pillow.new("RGB", (40, 30), (tone, 90, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


def squares(seed):
    """A picture with hard edges, so that a blur is seen in it."""
    tones = np.random.default_rng(seed).integers(0, 2, (12, 16)).astype(np.uint8) * 200
    buffer = io.BytesIO()
    pillow.fromarray(np.stack([np.kron(tones, np.ones((10, 10), np.uint8))] * 3, -1)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A filtered pool of N pictures whose realism is i / N, one of them explicit; a folder has the low half."""
    root = tmp_path_factory.mktemp("audited")
    ids = [f"{i:032x}" for i in range(N)]
    size = {"n_sources": 1, "format": "jpeg", "width": 800, "height": 800, "orientation": 1}
    images = from_rows(
        [
            {"image_id": i, "source": f"{'low' if n < N / 2 else 'high'}/{n}.jpg", **size, "bytes": squares(n)}
            for n, i in enumerate(ids)
        ],
        IMAGES,
    )
    box = {"boxes": [[0, 0, 500, 700]], "box_scores": [0.9], "refined": [False]}
    detections = from_rows([{"image_id": i, **box} for i in ids], DETECTIONS)
    scores = from_rows(
        [
            {"image_id": i, "scored": True, "realism": n / N, "sharpness": 0.9, "nsfw": 0.9 if n == 7 else 0.0}
            for n, i in enumerate(ids)
        ],
        scores_schema(4, 4),
    )
    config = FilterConfig()
    result = run_filter(images, detections, scores, config)
    sources = pa.table({"source": ["x"], "image_id": [ids[0]]})
    read = [("images", commit(root, "images", {"p": {"images": images, "sources": sources}}).version)]
    read.append(("detections", commit(root, "detections", {"p": {"data": detections}}).version))
    read.append(("scores", commit(root, "scores", {"p": {"data": scores}}).version))
    made = commit(
        root, "filtered", {"all": result.tables}, read, metrics=result.metrics, config=config.model_dump(mode="json")
    )
    store = Store(str(root))
    for kind, version in [*read, ("filtered", made.version)]:
        store.tag(f"latest/{kind}", store.get(kind, version))
    return root


def command(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=True)


def data_of(page):
    return json.loads(re.search(r'id="audit">(.*?)</script>', page, re.S)[1])


@needs_chromium
def test_labels_by_keyboard_resume_and_leave_as_json(tmp_path):
    shown = [Shown(f"{i:032x}", jpeg(50 * i), "</script><b>about</b>") for i in range(4)]
    question, answers = yes_no("Is it <good>?")
    page = label_page({"id": "0123456789ab", "kind": "rule", "note": "</script>"}, "Audit", question, answers, shown)
    press = "const press = (key) => document.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));"
    script = (
        press
        + """
      for (const key of ["y", "n", "ArrowLeft", "y", "Y", "x", "ArrowLeft"]) press(key);
      document.title = [audit.exported(), document.getElementById("state").textContent].join("|");
    """
    )
    exported, state = title_after(page, script, tmp_path).replace("&lt;", "<").replace("&gt;", ">").split("|")
    labels = {shown[0].image_id: "good", shown[1].image_id: "good", shown[2].image_id: "good"}
    assert json.loads(exported) == {"id": "0123456789ab", "kind": "rule", "note": "</script>", "labels": labels}
    assert state == "Picture 3 of 4, 3 answered"
    resumed = title_after(page, "document.title = document.getElementById('state').textContent;", tmp_path)
    assert resumed == "Picture 4 of 4, 3 answered"
    script = """
      const refused = [];
      try { audit.take('{"id": "another", "labels": {}}'); } catch (error) { refused.push(error.message); }
      audit.take(JSON.stringify({ id: "0123456789ab", labels: { "%s": "bad" } }));
      document.querySelector('#answers button[data-value="unsure"]').click();
      const last = JSON.parse(audit.exported()).labels["%s"];
      document.title = [...refused, last, document.getElementById("progress").value].join("|");
    """ % ((shown[3].image_id,) * 2)
    refused, last, progress = title_after(page, script, tmp_path).split("|")
    assert "another" in refused and last == "unsure" and progress == "4"


SAMPLE = ("audit", "sample", "--rule", "not_realistic", "--labels", 60, "--bands", 6)


def test_a_sample_is_drawn_over_the_bands_and_hides_what_is_flagged(root, tmp_path):
    done = command(*SAMPLE, "--out", tmp_path / "a.html", "--root", root)
    assert done.exit_code == 0, done.output
    data = data_of((tmp_path / "a.html").read_text())
    assert not re.search(r"""(?:src|href)=["']https?://""", (tmp_path / "a.html").read_text())
    assert [s["population"] for s in data["spec"]["strata"]] == [10] * 6
    assert {i["image_id"]: "blurred" in i["about"] for i in data["items"]} == {f"{n:032x}": n == 7 for n in range(N)}
    pictures = {
        i["image_id"]: np.asarray(pillow.open(io.BytesIO(base64.b64decode(i["jpeg"]))), float) for i in data["items"]
    }
    detail = {i: np.abs(np.diff(p, axis=0)).mean() for i, p in pictures.items()}
    assert detail[f"{7:032x}"] < 0.5 * np.median(list(detail.values()))
    assert data["spec"]["values"][f"{30:032x}"] == 0.5


def labelled(root, tmp_path, good):
    command(*SAMPLE, "--out", tmp_path / "a.html", "--root", root)
    spec = data_of((tmp_path / "a.html").read_text())["spec"]
    labels = {i: "good" if good(value) else "bad" for i, value in spec["values"].items()}
    (tmp_path / "labels.json").write_text(json.dumps({**spec, "labels": labels}))
    return tmp_path / "labels.json"


def test_labels_become_a_threshold_that_filter_takes_with_its_provenance(root, tmp_path):
    file, out = labelled(root, tmp_path, lambda realism: realism >= 1 / 3 - 1e-6), tmp_path / "thresholds.yaml"
    done = command("audit", "calibrate", file, "--precision", 0.8, "--out", out, "--root", root)
    assert done.exit_code == 0, done.output
    settings = command("step", "filter", "--config", out, "--dry-run", "--root", root)
    assert "-> 0.3333333432674408" in re.sub(r"\s+", " ", settings.output), settings.output
    from components.steps import STEPS
    from pipelines.chosen_settings import settings_of

    config = settings_of((), str(out), "builtin", "demo").config(STEPS["filter"])
    (rule,) = [rule for rule in rules(config) if rule.name == "not_realistic"]
    assert rule.bound == pytest.approx(1 / 3, abs=1e-6)
    said = r"audit [0-9a-f]{12} of filtered=[0-9a-f]{16}, 60 labels, .*: precision 1\.000, at least 0\.8"
    assert re.match(said, rule.provenance)


def test_what_cannot_be_promised_is_said(root, tmp_path):
    file = labelled(root, tmp_path, lambda realism: round(realism * N) % 2 == 0)
    done = command("audit", "calibrate", file, "--precision", 0.9, "--out", tmp_path / "no.yaml", "--root", root)
    assert isinstance(done.exception, ValueError) and "no threshold keeps a precision of 0.9" in str(done.exception)
    assert not (tmp_path / "no.yaml").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"labels": {}}, "holds no answers yet"),
        ({"labels": {"f" * 32: "good"}}, "labels f{32}, which is not in the sample"),
        ({"kind": None, "labels": None}, "holds no labels of an audit"),
    ],
)
def test_files_that_are_no_labels_are_named(root, tmp_path, change, text):
    found = json.loads(labelled(root, tmp_path, bool).read_text()) | change
    found = {key: value for key, value in found.items() if value is not None}
    with pytest.raises(ValueError, match=rf"mine\.json .*{text}"):
        read_labels(json.dumps(found), "mine.json")


def test_a_rule_that_is_not_there_is_named_with_those_that_are(root):
    store = Store(str(root))
    with pytest.raises(ValueError, match=r"there is no rule 'pretty' .* it has no_person, person_too_small"):
        audits.rule_sample(store, audits.pool_of(store), "pretty", labels=5, bands=2, seed=0)
    with pytest.raises(ArtifactError, match="is no version of filtered"):
        audits.pool_of(store, "scores")


def test_an_attribute_is_audited_by_its_confusion(root, tmp_path):
    store = Store(str(root))
    ids = [f"{n:032x}" for n in range(N)]
    bins = ["frontal" if n < 40 else "no_face" for n in range(N)]
    attributes = pa.table({"image_id": ids, "axis": ["head_pose"] * N, "bin": bins})
    counts = pa.table({"axis": ["head_pose"] * 2, "bin": ["frontal", "no_face"], "before": [40, 20], "after": [10, 10]})
    read = [(a.kind, a.version) for a in store.all() if a.kind in ("images", "scores")]
    selection = commit(root, "selection", {"all": {"attributes": attributes, "balance": counts}}, read)
    out = tmp_path / "b.html"
    done = command(
        "audit",
        "sample",
        "--attribute",
        "head_pose",
        "--labels",
        40,
        "--out",
        out,
        "--root",
        root,
        "--input",
        repr(selection),
    )
    assert done.exit_code == 0, done.output
    data = data_of(out.read_text())
    assert [a["value"] for a in data["answers"]] == ["frontal", "no_face", "unsure"]
    measured = data["spec"]["measured"]
    backs = sorted(i for i, b in measured.items() if b == "no_face")
    assert len(measured) == 40 and len(backs) == 20
    wrong = backs[:5]  # a quarter of the "no face" are frontal after all
    labels = {i: "frontal" if i in wrong else b for i, b in measured.items()}
    (tmp_path / "l.json").write_text(json.dumps({**data["spec"], "labels": labels}))
    told = json.loads(command("audit", "calibrate", tmp_path / "l.json", "--json", "--root", root).output)
    assert told["confusion"] == [[20, 0], [5, 15]]
    assert [s["corrected"] for s in told["before"]] == pytest.approx([2 / 3 + 1 / 12, 1 / 4])
    assert [s["corrected"] for s in told["after"]] == pytest.approx([5 / 8, 3 / 8])
    assert all(s["low"] < s["corrected"] < s["high"] for s in told["before"])
    written = tmp_path / "balance.yaml"
    done = command("audit", "calibrate", tmp_path / "l.json", "--out", written, "--root", root)
    assert done.exit_code == 0 and f"use it with --config {written}" in done.output, done.output
    overrides = settings_of((), str(written), "builtin", "demo").overrides
    config = BalanceConfig(**{name.removeprefix("balance."): value for name, value in overrides.items()})
    assert config.confusion["head_pose"].shares()["no_face"] == {"frontal": 0.25, "no_face": 0.75}
    assert config.provenance["head_pose"].startswith(f"audit {data['spec']['id']} of {selection!r}, 40 labels, 20")


def test_a_folder_that_loses_far_more_is_flagged(root):
    found = json.loads(command("audit", "rates", "--json", "--root", root).output)
    by_source = {e["group"]: e for e in found if e["axis"] == "source"}
    assert (by_source["low"]["dropped"], by_source["high"]["dropped"]) == (30, 0)
    assert by_source["low"]["flagged"] and not by_source["high"]["flagged"]
    assert {e["axis"] for e in found} >= {"source", "head_pose", "luminance"}


def test_origins():
    assert origin("https://a.example:81/x/y.jpg") == "a.example"
    assert (origin("pool.tar::a/b.jpg"), origin("a/b/c.jpg"), origin("c.jpg")) == ("pool.tar", "a", "(top)")


def test_more_bins_than_keys_are_refused():
    assert len(choices("x", [str(i) for i in range(33)])[1]) == 34
    keys = [a["key"] for a in choices("x", [str(i) for i in range(33)])[1]]
    assert len(set(keys)) == 34 and "s" not in keys
    with pytest.raises(ValueError, match="x has 40 bins"):
        choices("x", [str(i) for i in range(40)])


def test_attribute_labels_have_no_threshold():
    with pytest.raises(ValueError, match="an attribute without a threshold"):
        calibrate_rule({"kind": "attribute", "axis": "extent"}, precision=0.9, confidence=0.9, method="wilson", date="")
