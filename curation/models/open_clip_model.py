"""CLIP image vectors by open_clip, of the picture and of its main person, and the aesthetic head on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.models.aesthetic import AestheticHead
from curation.models.image_embedding import unit
from curation.models.scorer import Pixels, View, combined_key, crop
from curation.models.weights import file_sha256

Vector = NDArray[np.float32]

_BATCH = 16  # fixed: kernels are chosen by shape


class ClipTower:
    """The image side of a CLIP model: its architecture by open_clip name, its weights from a local file.

    The file may be anything open_clip loads: a state dictionary, a training checkpoint, OpenAI's TorchScript archive.
    Raises ValueError for an unknown architecture or a file that does not fit it.
    """

    def __init__(self, model: str, path: str | Path, *, device: str = "cpu") -> None:
        self.model_name, self.path, self.device = model, str(path), device
        self.sha256 = file_sha256(path)
        self._loaded: tuple[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import open_clip

            if self.model_name not in open_clip.list_models():
                raise ValueError(f"open_clip has no architecture {self.model_name!r}; see open_clip.list_models()")
            try:
                model, _, preprocess = open_clip.create_model_and_transforms(
                    self.model_name, pretrained=self.path, device=self.device
                )
            except RuntimeError as error:
                raise ValueError(f"{self.path} does not fit {self.model_name}: {error}") from error
            self._loaded = (model.eval(), preprocess)
        return self._loaded

    def embed(self, pictures: Sequence[Pixels]) -> Vector:
        """Unit vectors [N, D] of RGB pictures of any size."""
        import torch
        from PIL import Image

        model, preprocess = self._load()
        inputs = torch.stack([preprocess(Image.fromarray(picture)) for picture in pictures])
        parts = []
        with torch.inference_mode():
            for start in range(0, len(inputs), _BATCH):
                rows = inputs[start : start + _BATCH]
                padding = torch.zeros((_BATCH - len(rows), *rows.shape[1:]))
                features = model.encode_image(torch.cat([rows, padding]).to(self.device))
                parts.append(features[: len(rows)].float().cpu().numpy())
        vectors = np.concatenate(parts)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


class ClipScorer:
    """`embedding`: the vectors of the picture and of its main person (zeros without one), at unit length together.

    `aesthetic`: the head on the picture's vector, None without a head.
    """

    name = "clip"
    columns: tuple[str, ...] = ("embedding", "aesthetic")
    gated = True
    uses_boxes = True

    def __init__(
        self,
        model: str,
        path: str | Path,
        *,
        dim: int,
        aesthetic_path: str | Path | None = None,
        device: str = "cpu",
        revision: str = "1",
    ) -> None:
        self.tower = ClipTower(model, path, device=device)
        self.head = AestheticHead(aesthetic_path) if aesthetic_path is not None else None
        if self.head is not None and self.head.dim != dim:
            raise ValueError(
                f"the aesthetic head {aesthetic_path} scores vectors of length {self.head.dim}, {model} gives {dim}; "
                "choose the head made for this model, or none"
            )
        self.dim = dim
        digests = [self.tower.sha256, *([self.head.sha256] if self.head else [])]
        self.key = combined_key(digests, f"{model}-{revision}")

    def score(self, views: Sequence[View]) -> list[dict[str, Any]]:
        whole = self.tower.embed([view.pixels for view in views])
        if whole.shape[1] != self.dim:
            raise ValueError(f"{self.tower.model_name} gives vectors of {whole.shape[1]}; set score.clip_dim to that")
        boxes = [view.main_box for view in views]
        with_person = [i for i, box in enumerate(boxes) if box is not None]
        person = np.zeros_like(whole)
        if with_person:
            person[with_person] = self.tower.embed([crop(views[i].pixels, boxes[i]) for i in with_person])  # type: ignore[arg-type]
        scores = self.head.score(whole) if self.head is not None else [None] * len(views)
        joint = np.concatenate([whole, person], axis=1)
        return [{"embedding": unit(row), "aesthetic": score} for row, score in zip(joint, scores, strict=True)]
