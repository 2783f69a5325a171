"""Part masks of other vocabularies (CIHP, LIP, VOC) to masks of the 29 parts."""

from __future__ import annotations

from collections import defaultdict
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

    A mask of 1 bit holds the classes 0 and 1. Raises LabelError for an id that the vocabulary does not have.
    """
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise LabelError(where, f"holds {mask.dtype} of the shape {list(mask.shape)}", "give class ids, one channel")
    unknown = sorted({int(v) for v in np.unique(mask)} - {*range(class_count(name)), 255})
    if unknown:
        raise LabelError(
            where, f"has the class {unknown[0]}, {name} ends at {class_count(name) - 1}", "name its vocabulary"
        )
    ids = mask.astype(np.uint8) if mask.dtype.kind == "b" else mask
    return np.asarray(class_map(name)[ids], np.uint8)


def without_partner(images: Path, masks: Path) -> dict[str, list[str]]:
    """Names of the files that `import_masks` leaves behind, by reason."""
    pairs = _pairs(images, masks)
    used = {path for pair in pairs for path in pair}
    left = [path for path in _files(images) if path not in used]
    found = {
        "pictures without a mask": [path.name for path in left if path.suffix.lower() in PICTURES],
        "files that are no picture": [path.name for path in left if path.suffix.lower() not in PICTURES],
    }
    left = [path for path in _files(masks) if path not in used]
    found["masks without a picture"] = [path.name for path in left if path.suffix.lower() == ".png"]
    found["masks that are no PNG"] = [path.name for path in left if path.suffix.lower() != ".png"]
    return {reason: names for reason, names in found.items() if names}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Pictures and masks of the same stem."""
    pictures: dict[str, list[Path]] = defaultdict(list)
    for path in _files(images):
        if path.suffix.lower() in PICTURES:
            pictures[path.stem].append(path)
    pairs = []
    for label in (path for path in _files(masks) if path.suffix.lower() == ".png"):
        same = pictures.get(label.stem, [])
        if len(same) > 1:
            raise LabelError(
                str(label),
                f"may be the mask of {' or '.join(path.name for path in same)}",
                f"keep one picture of that stem in {images}, and masks in a folder of their own",
            )
        pairs += [(picture, label) for picture in same]
    return pairs


def import_masks(images: Path, masks: Path, name: str, writer: DatasetWriter, split: str = "train") -> int:
    """Every picture with a mask of the same stem goes to `writer`, its mask mapped; returns how many.

    What has no partner stays behind: `without_partner` names it. Raises LabelError for masks of another size or
    vocabulary, when no stem matches, or when a mask may be of two pictures.
    """
    pairs = _pairs(images, masks)
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
