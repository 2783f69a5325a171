"""Part masks of other vocabularies (CIHP, LIP, VOC) to masks of the 29 parts."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from sapiens2.data.formats.placing import lies_there
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
    pairs: list[tuple[Path, Path]] = []
    taken: dict[str, Path] = {}
    for label in (path for path in _files(masks) if path.suffix.lower() == ".png"):
        same = pictures.get(label.stem, [])
        if len(same) > 1:
            raise LabelError(
                str(label),
                f"may be the mask of {' or '.join(path.name for path in same)}",
                f"keep one picture of that stem in {images}, and masks in a folder of their own",
            )
        if same and taken.setdefault(label.stem, label) != label:
            raise LabelError(
                str(label),
                f"has the stem of {taken[label.stem].name}: both would be of {same[0].name}",
                "keep one mask",
            )
        pairs += [(picture, label) for picture in same]
    return pairs


def import_masks(images: Path, masks: Path, name: str, writer: DatasetWriter, split: str = "train") -> int:
    """Every picture with a mask of the same stem goes to `writer`, its mask mapped; returns how many.

    What has no partner stays behind: `without_partner` names it. All are read before the first is written, and no file
    that lies in the writer's folder is changed. Raises LabelError for masks of another size or vocabulary, when no stem
    matches, when a mask may be of two pictures or a picture has two masks, or when a file would be written over.
    """
    pairs = _pairs(images, masks)
    if not pairs:
        raise LabelError(
            str(masks), f"has no PNG of the stem of a picture in {images}", "give folders whose stems match"
        )
    new = [_new_files(picture, label, name, writer.folder) for picture, label in pairs]
    for (picture, label), missing in zip(pairs, new, strict=True):
        image, mask = _names(picture)
        if image in missing:
            writer.file(image, picture.read_bytes())
        if mask in missing:
            writer.file(mask, png_bytes(map_mask(stored_picture(str(label)), name, str(label))))
        writer.rows.append(Row(image=image, mask=mask, split=split))
    return len(pairs)


def _names(picture: Path) -> tuple[str, str]:
    """Of a picture and its mask, below the folder that is written."""
    return f"images/{picture.name}", f"masks/{picture.stem}.png"


def _new_files(picture: Path, label: Path, name: str, folder: str) -> set[str]:
    """Which files of a pair are still to be written; both are read in full, as `import_masks` says."""
    mapped = map_mask(stored_picture(str(label)), name, str(label))
    size = read_image(str(picture)).shape[:2]
    if mapped.shape != size:
        raise LabelError(
            str(label), f"is {mapped.shape[1]} x {mapped.shape[0]}, its picture {size[1]} x {size[0]}", "mend one"
        )
    image, mask = _names(picture)
    contents = {image: picture.read_bytes, mask: lambda: png_bytes(mapped)}
    return {file for file, content in contents.items() if not lies_there(folder, file, content)}
