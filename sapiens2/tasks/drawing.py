"""Pictures of answers that a person would want to look at; colours of our own."""

from __future__ import annotations

import numpy as np

from sapiens2.tasks.vocabulary import keypoints, parts

Array = np.ndarray
_RIM = (25, 25, 25)
_SIDE = {"left": (255, 138, 60), "right": (70, 170, 255), "middle": (235, 235, 120)}


def part_colours() -> Array:
    """uint8 [29, 3]: a hue per kind of part, warmer on the person's left, cooler on the right; background black."""
    words = parts()
    kinds = [name.removeprefix("Left_").removeprefix("Right_") for name in words.names]
    order = {kind: k for k, kind in enumerate(dict.fromkeys(kinds))}
    out = np.zeros((len(words), 3))
    for index, (name, kind) in enumerate(zip(words.names, kinds, strict=True)):
        hue = order[kind] * 0.618034 + (0.06 if name.startswith("Left_") else 0.0)
        light = 0.62 if name.startswith("Right_") else 0.9
        out[index] = light * (0.62 + 0.38 * np.cos(2 * np.pi * (hue + np.array([0, 1 / 3, 2 / 3]))))
    out[0] = 0
    return (out * 255).astype(np.uint8)


def draw_keypoints(image: Array, points: Array, shown: Array, *, thickness: int | None = None) -> Array:
    """Skeleton and points over a picture: orange the person's left, blue the right; face points small and pale.

    points: [308, 2] pixels; shown: bool [308]; thickness of limbs in pixels, default by the extent of the points.
    Fingers are thinner, no point has a radius below one pixel. From two pixels on everything but the many points of the
    face has a dark rim, so that it is seen on any ground.
    """
    import cv2

    words = keypoints()
    out = np.ascontiguousarray(image).copy()
    thickness = thickness or (limb_thickness(np.ptp(points[shown], axis=0)) if shown.any() else 1)
    where = [(round(float(x)), round(float(y))) for x, y in np.nan_to_num(points, nan=-1e4).clip(-1e4, 1e4)]
    lines = [(a, b) for a, b in words.links.tolist() if shown[a] and shown[b]]
    dots = [(i, _radius(words.groups[i], thickness)) for i in range(len(words)) if shown[i]]
    for rim in (1, 0) if thickness > 1 else (0,):
        for a, b in lines:
            same = _side(words.names[a]) == _side(words.names[b])
            colour = _RIM if rim else _SIDE[_side(words.names[a]) if same else "middle"]
            width = max(1, thickness // 2) if _is_hand(words.groups[a]) or _is_hand(words.groups[b]) else thickness
            cv2.line(out, where[a], where[b], colour, width + 2 * rim, cv2.LINE_AA)
        for index, radius in dots:
            face = words.groups[index] == "face"
            if rim and not face:
                cv2.circle(out, where[index], radius + rim, _RIM, -1, cv2.LINE_AA)
            elif not rim:
                colour = (255, 255, 255) if face else _SIDE[_side(words.names[index])]
                cv2.circle(out, where[index], radius, colour, -1, cv2.LINE_AA)
    return out


def limb_thickness(sides: Array) -> int:
    """Pixels for a person of these sides: about one 200th of the longer one, at least 1."""
    return max(1, round(min(float(np.max(sides)), 4000) / 200))


def _radius(group: str, thickness: int) -> int:
    if group == "face":
        return max(1, thickness // 3)
    return max(1, thickness // 2) if _is_hand(group) else thickness


def _is_hand(group: str) -> bool:
    return group.endswith("hand")


def draw_box(image: Array, box: Array, text: str = "") -> Array:
    """A person's box x0, y0, x1, y1 as a thin white frame with a dark rim, a text above it; a new picture."""
    import cv2

    out = np.ascontiguousarray(image).copy()
    x0, y0, x1, y1 = (round(float(v)) for v in box[:4])
    size = max(0.4, min(image.shape[:2]) / 1400)
    for colour, width in (((20, 20, 20), 3), ((255, 255, 255), 1)):
        cv2.rectangle(out, (x0, y0), (x1, y1), colour, width, cv2.LINE_AA)
        if text:
            place = (x0 + 4, y0 + round(32 * size) if y0 < 36 * size else y0 - 6)
            cv2.putText(out, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, width, cv2.LINE_AA)
    return out


def _side(name: str) -> str:
    return "left" if name.startswith("left") else "right" if name.startswith("right") else "middle"


def draw_parts(image: Array, labels: Array, *, opacity: float = 0.65) -> Array:
    """Part colours over the picture; the background stays as it is."""
    known = np.where(labels < len(parts()), labels, 0)
    colour = part_colours()[known].astype(np.float32)
    weight = np.where(known > 0, opacity, 0.0)[..., None]
    return (image * (1 - weight) + colour * weight + 0.5).astype(np.uint8)


def draw_normals(normals: Array, valid: Array) -> Array:
    """Normals as colours: right is red, up is green, towards the camera is blue; black outside."""
    shown = normals * np.array([0.5, -0.5, -0.5]) + 0.5
    return (np.where(valid[..., None], shown.clip(0, 1), 0) * 255 + 0.5).astype(np.uint8)


def draw_depth(points: Array, valid: Array, near: float | None = None, far: float | None = None) -> Array:
    """Depth of points [H, W, 3]: near is warm and bright, far is dark blue; black outside.

    near, far: metres at the ends of the scale; the 2 and 98 % points of the valid depths by default.
    """
    depth = points[..., 2]
    if valid.any():
        low, high = np.percentile(depth[valid], (2, 98))
        near, far = low if near is None else near, high if far is None else far
    near, far = near or 0.0, far or 1.0
    t = ((depth - near) / max(far - near, 1e-6)).clip(0, 1)[..., None]
    stops = np.array([[255, 236, 170], [248, 140, 80], [150, 55, 120], [30, 22, 70]], float)
    k = t * (len(stops) - 1)
    low_stop = np.minimum(k.astype(int), len(stops) - 2)
    colour = stops[low_stop[..., 0]] * (1 - (k - low_stop)) + stops[low_stop[..., 0] + 1] * (k - low_stop)
    return np.where(valid[..., None], colour, 0).astype(np.uint8)


def draw_albedo(albedo: Array, valid: Array) -> Array:
    """Albedo as it is; black outside."""
    return (np.where(valid[..., None], albedo.clip(0, 1), 0) * 255 + 0.5).astype(np.uint8)
