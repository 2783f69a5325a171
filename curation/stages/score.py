"""score: images and detections to one row of measurements per image. One decode feeds every scorer.

A table holds what was measured; thresholds belong to `filter`. The gate here is loose on purpose: it saves the
expensive scorers for pictures that any later threshold could still keep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from curation.images.reasons import Reject
from curation.models.cache import ModelCache
from curation.models.onnx_session import BrokenOutput
from curation.models.score_values import remembered, restored
from curation.models.scorer import Scorer, View, boxes_fingerprint, short_side
from curation.models.views import view_of
from curation.stages.result import StageResult
from curation.stages.score_config import ScoreConfig as ScoreConfig
from curation.stages.score_config import profile_config as profile_config
from curation.stages.score_config import required_weights as required_weights
from curation.stages.score_report import fragment as fragment  # the step's report, found by the stage's module
from curation.stages.score_scorers import build_scorers
from curation.tables import from_rows, require_columns, scores_schema


class ScorePartition:
    """Scores the images of one partition; build it once per worker, networks open at their first use.

    weights: file by model name, for every model in `required_weights(config)`. Raises ValueError for a missing one.
    """

    def __init__(self, config: ScoreConfig, weights: dict[str, str]) -> None:
        missing = [spec.name for spec in required_weights(config) if spec.name not in weights]
        if missing:
            raise ValueError(f"score needs the weights {missing}; given: {sorted(weights) or 'none'}")
        self.config = config
        self.weights = dict(weights)
        self._scorers: list[Scorer] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_scorers": None}

    @property
    def scorers(self) -> list[Scorer]:
        if self._scorers is None:
            self._scorers = build_scorers(self.config, self.weights)
        return self._scorers

    def __call__(self, images: pa.Table, detections: pa.Table, cache: ModelCache | None = None) -> StageResult:
        """Table `data`: one row of `scores` per row of `images`, in its order.

        Raises ValueError when a column is missing, an image has no row in `detections`, or a model gives NaN.
        """
        require_columns(images, ["image_id", "width", "height", "metadata", "bytes"], "score (images)")
        require_columns(detections, ["image_id", "boxes", "box_scores"], "score (detections)")
        persons = _persons(detections)
        ids: list[str] = images["image_id"].to_pylist()
        strangers = [i for i in ids if i not in persons]
        if strangers:
            raise ValueError(f"score: {len(strangers)} images have no row in detections, the first is {strangers[0]}")
        work = _Work(self, ids, persons, cache)
        work.run(images)
        schema = scores_schema(self.config.embedding_dim, self.config.copy_dim)
        return StageResult({"data": from_rows(work.table_rows(), schema)}, work.metrics())

    def passes_gate(self, persons: Sequence[tuple[list[float], float]]) -> bool:
        """Whether gated scorers run on a picture with these (box in original pixels, score)."""
        if self.config.gate_min_person_px == 0:
            return True
        return any(
            score >= self.config.gate_min_score and short_side(tuple(box)) >= self.config.gate_min_person_px  # type: ignore[arg-type]
            for box, score in persons
        )


Persons = dict[str, list[tuple[list[float], float]]]


def _persons(detections: pa.Table) -> Persons:
    """(box, score) of every person by image_id."""
    columns = (detections[name].to_pylist() for name in ("image_id", "boxes", "box_scores"))
    return {i: list(zip(boxes or [], scores or [], strict=True)) for i, boxes, scores in zip(*columns, strict=True)}


def _scored(scorer: Scorer, views: list[View]) -> list[dict[str, Any]]:
    """What a scorer says of pictures. Raises ValueError with the ids of those on which its network gives NaN."""
    try:
        return scorer.score(views)
    except BrokenOutput as error:
        broken = [view.image_id for view in views if len(views) == 1 or _breaks(scorer, view)]
        raise ValueError(f"score: {scorer.name} on image {', '.join(broken)}: {error}") from error


def _breaks(scorer: Scorer, view: View) -> bool:
    try:
        scorer.score([view])
    except BrokenOutput:
        return True
    return False


class _Work:
    """One call: what is known, what has to be measured, and the rows that come of it."""

    def __init__(self, stage: ScorePartition, ids: list[str], persons: Persons, cache: ModelCache | None) -> None:
        self.stage, self.config, self.ids, self.cache = stage, stage.config, ids, cache
        # Boxes under the gate's score are the detector's doubts: scorers do not look at them.
        self.boxes = {i: [box for box, score in persons[i] if score >= self.config.gate_min_score] for i in ids}
        self.prints = {i: boxes_fingerprint(self.boxes[i]) for i in ids}
        self.gated_in = {i: stage.passes_gate(persons[i]) for i in ids}
        self.rows: dict[str, dict[str, Any]] = {i: {} for i in ids}
        self.calls = {scorer.name: 0 for scorer in stage.scorers}
        self.undecodable: list[str] = []
        self.decoded = 0

    def run(self, images: pa.Table) -> None:
        missing = {scorer.key: set(self._recall(scorer)) for scorer in self.stage.scorers}
        wanted = set().union(*missing.values())
        for views in self._views(images, wanted):
            for scorer in self.stage.scorers:
                self._measure(scorer, [view for view in views if view.image_id in missing[scorer.key]])

    def _recall(self, scorer: Scorer) -> list[str]:
        """Takes over remembered values; returns the ids that the scorer has yet to see."""
        due = [i for i in self.ids if self.gated_in[i] or not scorer.gated]
        found = self.cache.get(self._cache_key(scorer), due) if self.cache is not None else {}
        absent = []
        for image_id in due:
            values = found.get(image_id)
            if values is None or (scorer.uses_boxes and values.get("boxes") != self.prints[image_id]):
                absent.append(image_id)
            else:
                self.rows[image_id].update(restored(values, scorer.columns))
        return absent

    def _cache_key(self, scorer: Scorer) -> str:
        return f"{scorer.key}-at{self.config.long_side_px}"

    def _views(self, images: pa.Table, wanted: set[str]) -> Iterator[list[View]]:
        """Batches of decoded pictures, each picture decoded once."""
        columns = [images[name] for name in ("width", "height", "metadata", "bytes")]
        batch: list[View] = []
        for row, image_id in enumerate(self.ids):
            if image_id not in wanted:
                continue
            width, height, metadata, data = (column[row].as_py() for column in columns)
            view = view_of(
                image_id,
                data,
                width=width,
                height=height,
                long_side_px=self.config.long_side_px,
                boxes=self.boxes[image_id],
                metadata=metadata,
            )
            self.decoded += 1
            if isinstance(view, Reject):
                self.undecodable.append(image_id)
                continue
            batch.append(view)
            if len(batch) == self.config.batch_images:
                yield batch
                batch = []
        if batch:
            yield batch

    def _measure(self, scorer: Scorer, views: list[View]) -> None:
        if not views:
            return
        fresh: dict[str, dict[str, Any]] = {}
        for view, values in zip(views, _scored(scorer, views), strict=True):
            stored = remembered(values, where=f"{scorer.name} on image {view.image_id}")
            if scorer.uses_boxes:
                stored["boxes"] = self.prints[view.image_id]
            fresh[view.image_id] = stored
            self.rows[view.image_id].update(restored(stored, scorer.columns))
        self.calls[scorer.name] += len(views)
        if self.cache is not None:
            self.cache.put(self._cache_key(scorer), fresh)

    def table_rows(self) -> list[dict[str, Any]]:
        lost = set(self.undecodable)
        return [{"image_id": i, "scored": self.gated_in[i] and i not in lost, **self.rows[i]} for i in self.ids]

    def metrics(self) -> dict[str, Any]:
        return {
            "rows_in": len(self.ids),
            "kept": len(self.ids),
            "dropped": {},
            "scored": sum(self.gated_in.values()) - sum(self.gated_in[i] for i in self.undecodable),
            "undecodable": len(self.undecodable),
            "decoded": self.decoded,
            "model_calls": dict(self.calls),
        }
