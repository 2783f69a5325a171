"""Pictures of an `images` artifact by their ids: rows, bytes, and small versions for pages and comparisons."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from components.artifacts import Artifact

NARROW = [  # the columns of `images` without the bytes
    "image_id",
    "source",
    "n_sources",
    "format",
    "width",
    "height",
    "orientation",
    "n_bytes",
    "phash",
    "phash_mirror",
    "phash_quality",
    "caption",
    "licence",
    "metadata",
]
THUMBNAIL_PX = 320


class ImageLookup:
    """Encoded bytes and small pictures of an `images` artifact by image_id, reading only the partitions needed."""

    def __init__(self, images: Artifact) -> None:
        self.images = images
        self._where: dict[str, str] = {}
        for pid in images.partitions("images"):
            for image_id in images.read_partition("images", pid, ["image_id"])["image_id"].to_pylist():
                self._where[image_id] = pid

    def rows(self, image_ids: list[str]) -> pa.Table:
        """Rows of `images`, bytes included, in the order of the ids."""
        wanted, found = set(image_ids), []
        for pid in sorted({self._where[i] for i in image_ids}):
            table = self.images.read_partition("images", pid)
            found.append(table.filter(pa.array([i in wanted for i in table["image_id"].to_pylist()])))
        whole = pa.concat_tables(found) if found else self.images.read("images").slice(0, 0)
        position = {image_id: row for row, image_id in enumerate(whole["image_id"].to_pylist())}
        return whole.take(pa.array([position[i] for i in image_ids], pa.int64()))

    def encoded(self, image_ids: list[str]) -> dict[str, bytes]:
        """Encoded bytes by id."""
        table = self.rows(image_ids)
        return dict(zip(table["image_id"].to_pylist(), table["bytes"].to_pylist(), strict=True))

    def thumbnails(self, image_ids: list[str]) -> dict[str, bytes]:
        """JPEG thumbnails, long side at most 320 px; pictures that no longer decode are left out."""
        from curation.audit.contact_sheet import thumbnail

        made = {i: thumbnail(data, max_side=THUMBNAIL_PX) for i, data in self.encoded(image_ids).items()}
        return {i: jpeg for i, jpeg in made.items() if jpeg is not None}

    def grey(self, image_ids: list[str]) -> dict[str, Any]:
        """Grey uint8 pictures, long side at most 320 px; pictures that no longer decode are left out."""
        import cv2

        from curation.images import Image, decode

        found = {}
        for image_id, data in self.encoded(image_ids).items():
            image = decode(data, min_side=THUMBNAIL_PX)
            if isinstance(image, Image):
                scale = min(1.0, THUMBNAIL_PX / max(image.pixels.shape[:2]))
                size = [max(1, round(side * scale)) for side in image.pixels.shape[1::-1]]
                small = cv2.resize(image.pixels, size, interpolation=cv2.INTER_AREA)
                found[image_id] = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        return found


def narrow(images: Artifact) -> pa.Table:
    """The `images` table without bytes."""
    return images.read("images", NARROW)
