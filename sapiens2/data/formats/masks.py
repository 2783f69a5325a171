"""Part masks of other vocabularies (CIHP, LIP, VOC) to masks of the 29 parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sapiens2.data.formats.vocabularies import class_count, class_map
from sapiens2.data.labelled.layout import LabelError, Row
from sapiens2.data.labelled.read import read_image, stored_picture
from sapiens2.data.labelled.write import DatasetWriter, png_bytes

Array = np.ndarray
PICTURES = (".jpg", ".jpeg", ".png", ".webp")


def map_mask(mask: Array, name: str, where: str = "mask") -> Array:
    """Class ids [H, W] of the vocabulary `name` as parts uint8 [H, W]; 255 stays unknown.

    Raises LabelError for an id that the vocabulary does not have.
    """
    if mask.ndim != 2:
        raise LabelError(where, f"has the shape {list(mask.shape)}", "give class ids, one channel")
    unknown = sorted({int(v) for v in np.unique(mask)} - {*range(class_count(name)), 255})
    if unknown:
        raise LabelError(
            where, f"has the class {unknown[0]}, {name} ends at {class_count(name) - 1}", "name its vocabulary"
        )
    return np.asarray(class_map(name)[mask], np.uint8)


def import_masks(images: Path, masks: Path, name: str, writer: DatasetWriter, split: str = "train") -> int:
    """Every picture with a mask of the same stem goes to `writer`, its mask mapped; returns how many.

    Raises LabelError for masks of another size or vocabulary, or when no stem matches.
    """
    pictures = {path.stem: path for path in sorted(images.iterdir()) if path.suffix.lower() in PICTURES}
    pairs = [(pictures[path.stem], path) for path in sorted(masks.glob("*.png")) if path.stem in pictures]
    if not pairs:
        raise LabelError(
            str(masks), f"has no PNG of the stem of a picture in {images}", "give folders whose stems match"
        )
    for picture, label in pairs:
        mapped = map_mask(stored_picture(str(label)), name, str(label))
        size = read_image(str(picture)).shape[:2]
        if mapped.shape != size:
            raise LabelError(
                str(label), f"is {mapped.shape[1]} x {mapped.shape[0]}, its picture {size[1]} x {size[0]}", "mend one"
            )
        writer.rows.append(
            Row(
                image=writer.file(f"images/{picture.name}", picture.read_bytes()),
                mask=writer.file(f"masks/{picture.stem}.png", png_bytes(mapped)),
                split=split,
            )
        )
    return len(pairs)
