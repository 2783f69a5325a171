"""Realism: photographs against pictures drawn by code, metadata, and the fit's own arithmetic."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
from sklearn.linear_model import LogisticRegression

from curation.audit.fit_realism import cross_validated, fit, fit_logistic, label_of, row_weights
from curation.models.realism import RealismScorer, load_model, statement, with_metadata
from curation.models.realism_features import FEATURES, realism_features
from curation.models.scorer import View

DATA = Path(skimage.__file__).parent / "data"


def photo(name: str) -> np.ndarray:
    return cv2.imread(str(DATA / name))[..., ::-1].copy()


def drawing(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pixels = np.full((420, 560, 3), rng.integers(180, 256, 3), np.uint8)
    for _ in range(12):
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        centre = tuple(int(c) for c in rng.integers(40, 400, 2))
        axes = tuple(int(a) for a in rng.integers(20, 110, 2))
        cv2.ellipse(pixels, centre, axes, float(rng.integers(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
        cv2.ellipse(pixels, centre, axes, 0, 0, 360, (10, 10, 10), 3, cv2.LINE_AA)
    return pixels


def test_photographs_score_over_drawings() -> None:
    photos = [View(n, photo(n)) for n in ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")]
    drawn = [View(str(seed), drawing(seed)) for seed in range(4)]
    scorer = RealismScorer()
    real = [row["realism"] for row in scorer.score(photos)]
    false = [row["realism"] for row in scorer.score(drawn)]
    assert min(real) > max(false) + 0.2, (real, false)
    assert max(false) < 0.1 and sorted(real)[1] > 0.5, (real, false)  # the smooth rocket.jpg is the hard one


def test_features_are_finite_on_degenerate_pictures() -> None:
    for pixels in (np.zeros((1, 1, 3)), np.full((3, 900, 3), 255), np.zeros((900, 2, 3)), np.full((64, 64, 3), 128)):
        values = realism_features(pixels.astype(np.uint8))
        assert values.shape == (len(FEATURES),) and np.isfinite(values).all()


def test_features_of_known_pictures() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, 100:] = 255
    values = dict(zip(FEATURES, realism_features(pixels), strict=True))
    assert values["white_share"] == values["black_share"] == values["top1_colour_share"] == 0.5
    assert values["top8_colour_share"] == values["grey_share"] == 1.0
    assert values["log_colours_24bit"] == pytest.approx(np.log(2 / 20000))
    assert values["equal_neighbour_share"] == pytest.approx(0.5 * (198 / 199) + 0.5)
    assert values["luma_entropy"] == pytest.approx(1.0)


def test_what_a_file_says_of_itself() -> None:
    camera = {"make": "Canon", "model": "EOS", "exposure_recorded": True}
    assert statement(camera) == "camera"
    assert statement({"make": "Canon"}) is None  # a name without an exposure is easily left over from an edit
    assert statement({**camera, "generator": "parameters"}) == "generated"
    assert statement({"digital_source_type": "trainedAlgorithmicMedia"}) == "generated"
    assert statement({"digital_source_type": "digitalArt"}) == "drawn"
    assert statement({"software": "Adobe Photoshop CS6"}) is None
    assert with_metadata(9.0, {"software": "Stable Diffusion 2.1"}) <= 0.02
    assert with_metadata(0.0, {}) == 0.5
    assert with_metadata(0.0, camera) == pytest.approx(1 / (1 + np.exp(-2)))


@pytest.mark.parametrize("name", ["statistics", "mobilenet"])
def test_the_stored_model_fits_the_features_and_says_where_it_comes_from(name: str) -> None:
    model = load_model(name)
    size = len(FEATURES) + (1280 if name == "mobilenet" else 0)
    assert model.coefficients.shape == model.mean.shape == model.scale.shape == (size,)
    assert (model.scale > 0).all()
    assert model.provenance["split"] == "fit"
    assert float(model.logit(model.mean[None])[0]) == pytest.approx(model.intercept, abs=1e-3)


def labelled(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, 5))
    y = (x @ [1.5, -2, 0, 0.5, 0] + rng.logistic(size=n) > 0.3).astype(float)
    return x, y


def test_newton_agrees_with_a_reference_solver() -> None:
    x, y = labelled()
    reference = LogisticRegression(C=1 / 2.5, tol=1e-10, max_iter=10_000).fit(x, y)
    ours = fit_logistic(x, y, np.ones(len(y)), 2.5)
    np.testing.assert_allclose(ours, [*reference.coef_[0], reference.intercept_[0]], atol=1e-4)


def test_weights_balance_classes_and_duplicate_groups() -> None:
    y = np.array([1, 1, 1, 1, 0.0])
    weights = row_weights(y, ["a", "a", "a", "b", "c"])
    np.testing.assert_allclose(weights, [2.5 / 6, 2.5 / 6, 2.5 / 6, 2.5 / 2, 2.5])


def test_cross_validation_never_trains_on_the_group_it_scores() -> None:
    """Labels are noise but shared by copies: a leak of copies across folds would look like skill."""
    rng = np.random.default_rng(5)
    x = np.repeat(rng.normal(size=(40, 30)), 5, axis=0)
    y = np.repeat(rng.integers(0, 2, 40), 5).astype(float)
    groups = [str(i // 5) for i in range(200)]
    logits = cross_validated(x, y, groups, 0.1)
    accuracy = float(((logits > 0) == (y > 0)).mean())
    assert accuracy < 0.75


def test_the_operating_point_rejects_the_stated_share_of_photographs() -> None:
    rng = np.random.default_rng(7)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.repeat([1.0, 0.0], n)
        return rng.normal(size=(2 * n, len(FEATURES))) + np.outer(2 * y - 1, np.eye(len(FEATURES))[0] * 1.2), y

    x, y = draw(400)
    stored = fit("statistics", x, y, [str(i) for i in range(len(y))], None)
    fresh, label = draw(4000)
    z = (fresh - np.array(stored["mean"])) / np.array(stored["scale"])
    rejected = (z @ np.array(stored["coefficients"]) + stored["intercept"] < 0)[label == 1].mean()
    assert 0.03 <= rejected <= 0.07


def test_captioned_photographs_teach_as_photographs() -> None:
    assert label_of({"kind": "text_overlay", "notes": ["synthetic_text"]}) == 1
    assert label_of({"kind": "text_overlay", "notes": ["meme"]}) is None
    assert label_of({"kind": "screenshot", "notes": []}) == 0
