"""The scorers that a configuration names, built in the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curation.models.copy_descriptor import WEIGHTS as COPY_WEIGHTS
from curation.models.copy_descriptor import CopyDescriptor, build_copy_descriptor
from curation.models.faces import CascadeFaces, FaceScorer, HeadPose, YuNetFaces
from curation.models.head_pose import FsaNetHeadPose, RotationHeadPose
from curation.models.image_embedding import DescriptorEmbedding, MobileNetEmbedding, MobileNetFeatures
from curation.models.quality import QualityScorer
from curation.models.realism import NsfwScorer, RealismScorer
from curation.models.scorer import Scorer, View, combined_key
from curation.models.text_lines import LineTextDetector
from curation.models.text_overlay import PaddleTextDetector, TextOverlayScorer
from curation.models.weights import file_sha256
from curation.stages.score_config import EMBEDDING_DIMS, ScoreConfig


class CopyScorer:
    """A copy descriptor as a scorer."""

    name = "copy-descriptor"
    columns: tuple[str, ...] = ("copy_embedding",)
    gated = True
    uses_boxes = False

    def __init__(self, descriptor: CopyDescriptor, path: str | None) -> None:
        self.descriptor = descriptor
        revision = f"copy-{descriptor.revision}"
        self.key = (
            f"builtin-{descriptor.name}/{revision}" if path is None else combined_key([file_sha256(path)], revision)
        )

    def score(self, views: Sequence[View]) -> list[dict[str, Any]]:
        vectors = self.descriptor.embed([view.pixels for view in views])
        return [{"copy_embedding": vector} for vector in vectors]


def build_scorers(config: ScoreConfig, weights: dict[str, str]) -> list[Scorer]:
    """Cheap scorers first. `weights` maps the names of `required_weights(config)` to files."""
    wants_mobilenet = "mobilenet" in (config.realism, config.embedding, config.nsfw)
    features = MobileNetFeatures(weights["nsfw_mobilenet_v2"]) if wants_mobilenet else None
    scorers: list[Scorer] = [QualityScorer()]
    if config.realism != "none":
        scorers.append(RealismScorer(features if config.realism == "mobilenet" else None))
    if config.nsfw != "none" and features is not None:
        scorers.append(NsfwScorer(features))
    if config.text != "none":
        detector = PaddleTextDetector(weights["ppocr_det"]) if config.text == "ppocr" else LineTextDetector()
        scorers.append(TextOverlayScorer(detector))
    if config.faces != "none":
        faces = YuNetFaces(weights["yunet"]) if config.faces == "yunet" else CascadeFaces()
        scorers.append(FaceScorer(faces, _head_pose(config, weights)))
    scorers.append(_embedding(config, weights, features))
    copy_file = COPY_WEIGHTS[config.copy_descriptor]
    descriptor = build_copy_descriptor(config.copy_descriptor, weights)
    scorers.append(CopyScorer(descriptor, None if copy_file is None else weights[copy_file]))
    return scorers


def _head_pose(config: ScoreConfig, weights: dict[str, str]) -> HeadPose | None:
    if config.head_pose == "fsanet":
        return FsaNetHeadPose([weights["fsanet_1x1"], weights["fsanet_var"]])
    return RotationHeadPose(weights["headpose_6drepnet"]) if config.head_pose == "rotation" else None


def _embedding(config: ScoreConfig, weights: dict[str, str], features: MobileNetFeatures | None) -> Scorer:
    if config.embedding == "open_clip":
        from curation.models.open_clip_model import ClipScorer

        head = weights[config.aesthetic_weights] if config.aesthetic_weights else None
        path = weights[config.clip_weights]
        return ClipScorer(config.clip_model, path, aesthetic_path=head, dim=config.clip_dim, device=config.device)
    if config.embedding == "mobilenet" and features is not None:
        return MobileNetEmbedding(features, dim=EMBEDDING_DIMS["mobilenet"])
    return DescriptorEmbedding()
