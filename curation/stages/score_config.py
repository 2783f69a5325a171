"""The configuration of `score`: which scorers a profile names, the size they see, the gate, the weights they need."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from curation.config import Config, execution, recipe
from curation.models.catalogue import ModelSpec, known
from curation.models.copy_descriptor import DIMS as COPY_DIMS
from curation.models.copy_descriptor import WEIGHTS as COPY_WEIGHTS

EMBEDDING_DIMS = {"builtin": 256, "mobilenet": 256}


class ScoreConfig(Config):
    """Which scorers run, on what size of picture, behind which gate."""

    long_side_px: int = recipe(768, "long side in pixels of the picture every scorer sees", ge=128, le=4096)
    gate_min_person_px: float = recipe(
        288.0,
        "gated scorers run on pictures with a person whose box has at least this short side, in pixels of the "
        "original (0.75 of the 384 px that the paper asks for); 0 runs them on every picture",
        ge=0,
    )
    gate_min_score: float = recipe(0.3, "detector score from which a person counts for the gate, 0..1", ge=0, le=1)
    text: Literal["none", "builtin", "ppocr"] = recipe("builtin", "detector of overlaid text")
    realism: Literal["none", "statistics", "mobilenet"] = recipe("statistics", "photograph against drawn picture")
    faces: Literal["none", "builtin", "yunet"] = recipe("builtin", "face detector")
    head_pose: Literal["none", "fsanet", "rotation"] = recipe(
        "none", "head pose network; none leaves the coarse yaw that the builtin face detector knows"
    )
    embedding: Literal["builtin", "mobilenet", "open_clip"] = recipe(
        "builtin", "image vector to cluster and balance by"
    )
    nsfw: Literal["none", "mobilenet"] = recipe("none", "classifier of explicit pictures")
    copy_descriptor: Literal["builtin", "mobilenet", "sscd"] = recipe("builtin", "image vector that finds copies")
    clip_model: str = recipe("ViT-L-14-quickgelu", "open_clip architecture of the CLIP weights")
    clip_weights: str = recipe("clip_vit_l14", "catalogue name of the CLIP weights")
    clip_dim: int = recipe(768, "length of one CLIP image vector; the embedding holds two", ge=1)
    aesthetic_weights: str | None = recipe("laion_aesthetic_l14", "catalogue name of the aesthetic head")
    clip_path: str | None = execution(None, "a CLIP checkpoint to use in place of the catalogue's file")
    copy_path: str | None = execution(None, "a copy descriptor file to use in place of the catalogue's")
    head_pose_path: str | None = execution(None, "a rotation head-pose file to use in place of the catalogue's")
    device: str = execution("cpu", "torch device of the CLIP model")
    batch_images: int = execution(16, "pictures decoded and held at once", ge=1)
    workers: int = execution(2, "processes that score partitions side by side; 0 works in the calling process", ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> ScoreConfig:
        if self.head_pose != "none" and self.faces == "none":
            raise ValueError(f"score.head_pose={self.head_pose} needs faces; set score.faces to builtin or yunet")
        return self

    @property
    def embedding_dim(self) -> int:
        """Length of `embedding`."""
        return 2 * self.clip_dim if self.embedding == "open_clip" else EMBEDDING_DIMS[self.embedding]

    @property
    def copy_dim(self) -> int:
        """Length of `copy_embedding`."""
        return COPY_DIMS[self.copy_descriptor]


def profile_config(profile: str) -> ScoreConfig:
    """The scorers of a profile: builtin, small or full. Raises ValueError for another name."""
    if profile == "builtin":
        return ScoreConfig()
    small: dict[str, Any] = {
        "text": "ppocr",
        "realism": "mobilenet",
        "faces": "yunet",
        "head_pose": "fsanet",
        "embedding": "mobilenet",
        "nsfw": "mobilenet",
        "copy_descriptor": "builtin",
    }
    if profile == "small":
        return ScoreConfig(**small)
    if profile == "full":
        return ScoreConfig(**{**small, "head_pose": "rotation", "embedding": "open_clip", "copy_descriptor": "sscd"})
    raise ValueError(f"there is no profile {profile!r}; choose builtin, small or full")


def required_weights(config: ScoreConfig) -> list[ModelSpec]:
    """The weight files that the chosen scorers need, each once."""
    names: list[str] = []
    if config.text == "ppocr":
        names.append("ppocr_det")
    if "mobilenet" in (config.realism, config.embedding, config.nsfw):
        names.append("nsfw_mobilenet_v2")
    if config.faces == "yunet":
        names.append("yunet")
    if config.head_pose == "fsanet":
        names += ["fsanet_1x1", "fsanet_var"]
    if config.head_pose == "rotation":
        names.append("headpose_6drepnet")
    if config.embedding == "open_clip":
        names += [config.clip_weights, *([config.aesthetic_weights] if config.aesthetic_weights else [])]
    copy = COPY_WEIGHTS[config.copy_descriptor]
    if copy is not None:
        names.append(copy)
    own = {config.clip_weights: config.clip_path, "headpose_6drepnet": config.head_pose_path}
    if copy is not None:
        own[copy] = config.copy_path
    return [known(name).at(path) if (path := own.get(name)) else known(name) for name in dict.fromkeys(names)]
