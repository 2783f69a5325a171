"""From a row of the index to a typed sample; every label is checked as it is read.

Reading and `sapiens2 data check` go through the same functions, so what passes the check can be trained on.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np

from sapiens2.data.labelled.layout import DatasetFacts, LabelError, Row
from sapiens2.engine import storage
from sapiens2.tasks.regions import MAX_SIDE, off_picture, said_too_far, too_far
from sapiens2.tasks.sample import Sample
from sapiens2.tasks.vocabulary import IGNORE, keypoints, parts

Array = np.ndarray
UNIT_TOLERANCE = 0.05  # lengths of stored normals; half precision and 8 bits stay within
REPROJECTION_PX = 1.0  # median error beyond which points and intrinsics do not belong together
FAR_M = 200.0  # a person is nearer: a larger median depth is in millimetres


def read_sample(folder: str, facts: DatasetFacts, row: Row, task: str) -> Sample:
    """The picture of a row and its labels for `task`, at their native size.

    Raises LabelError naming the file and the mend for whatever cannot be read or cannot be true.
    """
    image = read_image(storage.join(folder, row.image))
    size = image.shape[:2]
    sample = Sample(image=image, box=read_box(row, size), area=row.area)
    if task == "pose":
        xy, labelled = read_keypoints(row, size)
        return replace(sample, keypoints=xy, labelled=labelled)
    if task == "segmentation":
        return replace(sample, mask=read_mask(_path(folder, row, "mask"), size))
    valid = None if row.valid is None else read_valid(_path(folder, row, "valid"), size)
    if task == "normal":
        normals, valid = read_normals(_path(folder, row, "normals"), size, valid, facts)
        return replace(sample, normals=normals, valid=valid)
    if task == "albedo":
        albedo = read_albedo(_path(folder, row, "albedo"), size, valid)
        return replace(sample, albedo=albedo, valid=np.ones(size, bool) if valid is None else valid)
    points, valid = read_points(folder, row, size, valid, facts)
    assert row.intrinsics is not None
    return replace(sample, points=points, valid=valid, intrinsics=row.intrinsics.astype(np.float32))


def _path(folder: str, row: Row, name: str) -> str:
    relative = getattr(row, name)
    if relative is None:
        raise LabelError(row.where, f"has no `{name}`", "label it, or leave the row out of this task")
    return storage.join(folder, relative)


def read_bytes(path: str) -> bytes:
    """The bytes of a file; LabelError if it is not there."""
    try:
        return storage.read_bytes(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise LabelError(path, "is not there", "paths in the index are relative to its folder") from error


def read_image(path: str) -> Array:
    """An upright picture, uint8 [H, W, 3] RGB; LabelError for one that cannot be decoded or framed."""
    import cv2

    data = np.frombuffer(read_bytes(path) or b"\0", np.uint8)
    try:
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:  # how OpenCV refuses a header that speaks of too many pixels
        decoded = None
    if decoded is None:
        raise LabelError(path, "is not a picture that can be decoded", "save it again as JPEG or PNG, or drop the row")
    if max(decoded.shape) > MAX_SIDE:
        mend = f"cut picture and labels to sides of {MAX_SIDE} or less, or shrink them"
        raise LabelError(path, f"has a side of {max(decoded.shape)} pixels", mend)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def read_box(row: Row, size: tuple[int, int]) -> Array | None:
    """The person box, float32 [4], or None; LabelError if it is empty, beside the picture or far beyond it.

    What is accepted here `sapiens2.tasks.predict.checked_boxes` accepts: the limits are the same functions.
    """
    if row.box is None:
        return None
    box, (height, width) = np.array(row.box), size
    with np.errstate(over="ignore"):
        narrow = box.astype(np.float32)  # as it is used: a box may lose its area here
    if not np.isfinite(box).all() or (narrow[2:] <= narrow[:2]).any():
        raise LabelError(row.where, f"`box` {list(row.box)} has no area", "give [x0, y0, x1, y1], not width and height")
    if off_picture(narrow[None], size)[0]:
        raise LabelError(
            row.where,
            f"`box` {list(row.box)} lies outside the picture of {width} x {height}",
            "let it reach past the centres of the picture's outermost pixels (0, 0 is the first), or drop the row",
        )
    if too_far(box[None], size)[0]:
        raise LabelError(
            row.where,
            f"`box` {list(row.box)} {said_too_far(size)}",
            "give [x0, y0, x1, y1] in pixels of this very picture",
        )
    return narrow


def read_keypoints(row: Row, size: tuple[int, int]) -> tuple[Array, Array]:
    """Places float32 [308, 2] and which are labelled, bool [308]; unlabelled ones lie at 0."""
    if row.keypoints is None:
        raise LabelError(row.where, "has no `keypoints`", "label it, or leave the row out of this task")
    names, (height, width) = keypoints().names, size
    seen = row.keypoints[:, 2]
    bad = ~np.isin(seen, (0, 1, 2))
    if bad.any():
        k = int(np.flatnonzero(bad)[0])
        raise LabelError(
            row.where, f"keypoint {k} ({names[k]}) has the visibility {seen[k]:g}", "use 0 unlabelled, 1 hidden, 2 seen"
        )
    labelled = seen > 0
    xy = np.where(labelled[:, None], row.keypoints[:, :2], 0.0)
    outside = ~((xy >= -0.5) & (xy <= np.array([width, height]) - 0.5)).all(1)  # true for NaN too
    if outside.any():
        k = int(np.flatnonzero(outside)[0])
        raise LabelError(
            row.where,
            f"keypoint {k} ({names[k]}) at ({xy[k, 0]:g}, {xy[k, 1]:g}) lies outside the picture of {width} x {height}",
            "set its visibility to 0, or mend its place",
        )
    return xy.astype(np.float32), labelled


def stored_picture(path: str) -> Array:
    """A PNG as it is stored: indices of a palette, 8 or 16 bits; LabelError if it cannot be decoded."""
    from PIL import Image, UnidentifiedImageError

    data = read_bytes(path)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.array(picture)
    except Image.DecompressionBombError as error:
        raise LabelError(path, "has more pixels than can be decoded", "cut it into smaller pictures") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, ImportError) as error:
        # ValueError: a damaged chunk.
        # ImportError: ultralytics, once imported, puts in place of Image.open a function that looks for a HEIF plugin.
        raise LabelError(path, "is not a picture that can be decoded", "save the label as PNG") from error


def _sized(path: str, array: Array, size: tuple[int, int], shape: tuple[int, ...]) -> Array:
    """The array, if its shape is size + shape."""
    wanted = (*size, *shape)
    if array.shape[:2] != size:
        raise LabelError(
            path,
            f"is {_say(array)}, its picture is {size[1]} x {size[0]}",
            "make label and picture the same size, or resize labels with nearest neighbours",
        )
    if array.shape != wanted:
        raise LabelError(path, f"has the shape {list(array.shape)}", f"store {list(wanted)}")
    return array


def _say(array: Array) -> str:
    return f"{array.shape[1]} x {array.shape[0]}" if array.ndim >= 2 else f"of the shape {list(array.shape)}"


def read_mask(path: str, size: tuple[int, int]) -> Array:
    """Class ids uint8 [H, W]; LabelError for a class that the vocabulary does not have."""
    mask = _sized(path, stored_picture(path), size, ())
    unknown = sorted({int(v) for v in np.unique(mask)} - {*range(len(parts())), IGNORE})
    if unknown:
        raise LabelError(
            path,
            f"has the class {unknown[0]}" + (f" and {len(unknown) - 1} more unknown ones" if unknown[1:] else ""),
            f"use 0..{len(parts()) - 1} and {IGNORE} for unknown; `sapiens2 data import` maps other vocabularies",
        )
    return mask.astype(np.uint8)


def read_valid(path: str, size: tuple[int, int]) -> Array:
    """Where labels are known, bool [H, W]: the first channel is not 0."""
    stored = stored_picture(path)
    return _sized(path, stored[..., 0] if stored.ndim == 3 else stored, size, ()) > 0


def _array(path: str, key: str) -> Array:
    """A float array of an npy file, or of an npz file under `key` (or its only array)."""
    data = read_bytes(path)
    try:
        loaded: Any = np.load(io.BytesIO(data), allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            names = list(loaded.files)
            name = key if key in names else names[0] if len(names) == 1 else None
            if name is None:
                raise LabelError(path, f"holds the arrays {names}", f"name the right one `{key}`")
            loaded = loaded[name]
    except LabelError:
        raise
    except Exception as error:
        # Of damaged bytes numpy, zipfile, zlib and tokenize each raise their own; the bytes are all that is read here.
        raise LabelError(
            path,
            f"is damaged, or no npy or npz file of numbers ({type(error).__name__})",
            "save it again with numpy.save, or drop the row",
        ) from error
    if loaded.dtype.kind not in "fiu":
        raise LabelError(path, f"holds {loaded.dtype}", "save float16 or float32")
    return np.asarray(loaded, np.float32)


_OPENGL = np.array([1, -1, -1], np.float32)


def read_normals(path: str, size: tuple[int, int], valid: Array | None, facts: DatasetFacts) -> tuple[Array, Array]:
    """Unit normals float32 [H, W, 3] in camera axes (they face the camera), and where they are known.

    Zero vectors are unknown, with a `valid` file as without one. NaN is an error where they are known.
    """
    normals = _sized(path, _array(path, "normals"), size, (3,))
    if facts.axes == "opengl":
        normals = normals * _OPENGL
    given = np.asarray((normals != 0).any(-1))  # NaN is not 0
    valid = given if valid is None else valid & given
    inside = normals[valid]
    _finite(path, "normals", inside, "store 0 where they are not known, or name a `valid` mask")
    length = np.linalg.norm(inside, axis=-1)
    if len(length) and np.abs(length - 1).max() > UNIT_TOLERANCE:
        wrong = float(np.mean(np.abs(length - 1) > UNIT_TOLERANCE))
        raise LabelError(path, f"{wrong:.1%} of its normals are not of length 1", "divide each by its length")
    if len(inside) and inside[:, 2].mean() > 0:
        raise LabelError(
            path,
            f"its normals look away from the camera (mean z is {inside[:, 2].mean():+.2f}; axes are x right, y down, "
            "z forward, so z is negative on a visible surface)",
            f'set "axes": "{"opengl" if facts.axes == "opencv" else "opencv"}" in dataset.json if y and z are the '
            "other way round",
        )
    out = np.zeros_like(normals)
    out[valid] = inside / np.maximum(length, 1e-6)[:, None]
    return out, valid


def _finite(path: str, what: str, inside: Array, mend: str) -> None:
    bad = ~np.isfinite(inside)
    if bad.any():
        raise LabelError(path, f"has NaN or infinite {what} at {int(bad.any(-1).sum())} labelled pixels", mend)


def read_albedo(path: str, size: tuple[int, int], valid: Array | None) -> Array:
    """Albedo float32 [H, W, 3], sRGB in [0, 1]."""
    if path.endswith((".npy", ".npz")):
        albedo = _array(path, "albedo")
    else:
        stored = stored_picture(path)
        if stored.ndim == 3 and stored.shape[2] == 4:
            stored = stored[..., :3]
        albedo = stored.astype(np.float32) / np.iinfo(stored.dtype if stored.dtype.kind == "u" else np.uint8).max
    albedo = _sized(path, albedo, size, (3,))
    inside = albedo if valid is None else albedo[valid]
    _finite(path, "albedo", inside.reshape(-1, 3), "name a `valid` mask that leaves those pixels out")
    if inside.size and (inside.min() < 0 or inside.max() > 1):
        raise LabelError(path, f"its albedo lies in [{inside.min():g}, {inside.max():g}]", "store sRGB in [0, 1]")
    return np.where(np.isfinite(albedo), albedo, 0).astype(np.float32)


def read_points(
    folder: str, row: Row, size: tuple[int, int], valid: Array | None, facts: DatasetFacts
) -> tuple[Array, Array]:
    """Metric points float32 [H, W, 3] in front of the camera, and where they are known.

    From `points`, or from `depth` and the intrinsics. Depth 0 is unknown, with a `valid` file as without one.
    """
    k = read_intrinsics(row, size)
    if row.points is not None:
        path = storage.join(folder, row.points)
        points = _sized(path, _array(path, "points"), size, (3,))
        points = points * _OPENGL if facts.axes == "opengl" else points
    else:
        path = _path(folder, row, "depth")
        points = unproject(_sized(path, _depth(path, facts), size, ()), k)
    given = np.asarray(points[..., 2] != 0)  # NaN is not 0
    valid = given if valid is None else valid & given
    inside = points[valid]
    _finite(path, "points", inside, "store 0 where depth is not known, or name a `valid` mask")
    if len(inside):
        _check_points(path, inside, np.argwhere(valid)[:, ::-1], k)
    out = np.zeros(points.shape, np.float32)
    out[valid] = inside
    return out, valid


def _depth(path: str, facts: DatasetFacts) -> Array:
    if path.endswith((".npy", ".npz")):
        return _array(path, "depth")
    return stored_picture(path).astype(np.float32) * np.float32(facts.depth_unit)


def _check_points(path: str, points: Array, pixels: Array, k: Array) -> None:
    z = points[:, 2]
    if z.min() <= 0:
        behind = float(np.mean(z <= 0))
        raise LabelError(
            path,
            f"{behind:.1%} of its points lie behind the camera (axes are x right, y down, z forward)",
            "store 0 where depth is not known, or set `axes` in dataset.json",
        )
    if np.median(z) > FAR_M:
        raise LabelError(path, f"its median depth is {np.median(z):.0f} m", "store metres, not millimetres")
    projected = points.astype(np.float64) @ k.T
    error = np.linalg.norm(projected[:, :2] / projected[:, 2:] - pixels, axis=1)
    if np.median(error) > REPROJECTION_PX:
        raise LabelError(
            path,
            f"its points project {np.median(error):.1f} pixels (median) from where they lie",
            "give the intrinsics of this very picture; pixel (0, 0) is the centre of the first pixel",
        )


_CAMERA = "give [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels"


def read_intrinsics(row: Row, size: tuple[int, int]) -> Array:
    """The camera matrix float64 [3, 3], upper triangular; LabelError if it is missing or no camera of such a picture.

    Its skew K[0, 1] is 0 for almost every camera, and honoured where it is not.
    """
    k, (height, width) = row.intrinsics, size
    if k is None:
        raise LabelError(row.where, "has no `intrinsics`", _CAMERA)
    problem = f"are no camera of a picture of {width} x {height}"
    wrong = not np.isfinite(k).all() or k[0, 0] <= 0 or k[1, 1] <= 0
    wrong = wrong or not (-width < k[0, 2] < 2 * width and -height < k[1, 2] < 2 * height)
    fixed = {"K[1, 0]": (k[1, 0], 0), "K[2, 0]": (k[2, 0], 0), "K[2, 1]": (k[2, 1], 0), "K[2, 2]": (k[2, 2], 1)}
    for name, (found, wanted) in fixed.items():
        if not wrong and abs(found - wanted) > 1e-6:
            wrong, problem = True, f"have {found:g} at {name}, where a camera has {wanted}"
    if wrong:
        raise LabelError(row.where, f"`intrinsics` {k.tolist()} {problem}", _CAMERA)
    return k


def unproject(depth: Array, k: Array) -> Array:
    """Points float32 [H, W, 3] from depth [H, W] and a camera matrix."""
    height, width = depth.shape
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    homogeneous = np.concatenate([pixels, np.ones((height, width, 1))], -1)
    return (homogeneous @ np.linalg.inv(k).T * depth[..., None]).astype(np.float32)
