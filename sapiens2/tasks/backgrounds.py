"""Other pictures behind people: who was photographed before a grey sheet is seen in a room, in a street, in a wood.

The person's pixels are those of the labels; their colours move towards the new background's (Reinhard et al. 2001,
"Color transfer between images"), since light that does not belong there gives the cut away.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from sapiens2.engine import storage
from sapiens2.tasks.augmentation import Background
from sapiens2.tasks.sample import Sample

Array = np.ndarray
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
LEAST_PIXELS = 16
"""Of a person; with fewer the picture stays as it is."""


class Backgrounds:
    """Pictures of a folder or URI, in the order of their names; raises ValueError where there are none."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.names = pictures(folder)

    def picture(self, index: int) -> Array:
        """RGB uint8 [H, W, 3]; ValueError with the name of a file that is no picture."""
        import cv2

        path = storage.join(self.folder, self.names[index])
        found = cv2.imdecode(np.frombuffer(storage.read_bytes(path), np.uint8), cv2.IMREAD_COLOR)
        if found is None:
            raise ValueError(f"background {path} cannot be read as a picture: replace it, or take it out of the folder")
        return np.ascontiguousarray(found[..., ::-1])

    def behind(self, sample: Sample, how: Background, rng: np.random.Generator) -> Sample:
        """The sample before a drawn part of a drawn picture; itself where its labels show no person.

        Only the picture changes. Raises ValueError for a sample whose labels do not say which pixels are the person's.
        """
        person = person_pixels(sample)
        if person.sum() < LEAST_PIXELS:
            return sample
        height, width = person.shape
        scene = cut(self.picture(int(rng.integers(len(self.names)))), (height, width), rng)
        return replace(sample, image=composed(sample.image, person, scene, how))


def pictures(folder: str) -> list[str]:
    """Names of the pictures directly in a folder or below a URI, sorted; ValueError where there are none."""
    from pyarrow import fs

    system, path = storage.locate(folder)
    found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    names = sorted(f.base_name for f in found if f.is_file and f.base_name.lower().endswith(ENDINGS))
    if not names:
        raise ValueError(f"backgrounds={folder!r} holds no picture ({', '.join(ENDINGS)}): name the folder they are in")
    return names


def backgrounds_digest(folder: str) -> str:
    """sha256 over the sorted (name, size, sha256) of the pictures of a folder."""
    digest = hashlib.sha256()
    for name in pictures(folder):
        size, sha256 = storage.fingerprint(storage.join(folder, name))
        digest.update(f"{name}\0{size}\0{sha256}\n".encode())
    return digest.hexdigest()


def person_pixels(sample: Sample) -> Array:
    """bool [H, W]: where the labels show a person. Unknown pixels (255) stay with it, lest an arm be cut off."""
    if sample.mask is not None:
        return np.asarray(sample.mask) != 0
    if sample.valid is not None:
        return np.asarray(sample.valid)
    raise ValueError("a sample has neither a mask nor valid pixels: no background can be put behind it")


def cut(picture: Array, size: tuple[int, int], rng: np.random.Generator) -> Array:
    """The largest part of a picture that has the shape of `size` (height, width), at a drawn place, at that size."""
    import cv2

    height, width = picture.shape[:2]
    factor = max(size[0] / height, size[1] / width)
    h, w = min(height, round(size[0] / factor)), min(width, round(size[1] / factor))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture[y : y + h, x : x + w], size[::-1], interpolation=how))


def composed(image: Array, person: Array, scene: Array, how: Background) -> Array:
    """uint8 [H, W, 3]: the person of `image` before `scene`; colours moved by `tone`, the outline soft by `edge`."""
    import cv2

    toned = transferred(image, person, scene, how.tone) if how.tone else image.astype(np.float32)
    share: Array = person.astype(np.float32)
    if how.edge:
        share = cv2.GaussianBlur(share, (0, 0), how.edge)
    share = share[..., None]
    return np.asarray((share * toned + (1 - share) * scene + 0.5).clip(0, 255).astype(np.uint8))


def transferred(image: Array, person: Array, scene: Array, tone: float) -> Array:
    """float32 [H, W, 3], 0..255: mean and spread of the person's Lab channels go the share `tone` to the scene's."""
    import cv2

    ours, theirs = (cv2.cvtColor(x.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for x in (image, scene))
    mean, spread = ours[person].mean(0), ours[person].std(0)
    wanted, reach = theirs.reshape(-1, 3).mean(0), theirs.reshape(-1, 3).std(0)
    moved = (ours - mean) * (reach / np.maximum(spread, 1.0)) + wanted
    mixed = (1 - tone) * ours + tone * moved
    return np.asarray(cv2.cvtColor(mixed.astype(np.float32), cv2.COLOR_LAB2RGB).clip(0, 1) * 255)
