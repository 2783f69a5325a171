"""Pictures of MakeHuman bodies with the labels of every task, in the scenes of `sapiens2.data.synthetic`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sapiens2.data.makehuman import materials
from sapiens2.data.makehuman.files import MakeHumanError, read_skeleton, read_surface, read_weights
from sapiens2.data.makehuman.joints import turns
from sapiens2.data.makehuman.landmarks import Landmarks, Skin, find_landmarks
from sapiens2.data.makehuman.rig import Posed, Rig, below, pose
from sapiens2.data.makehuman.shapes import Shapes
from sapiens2.data.makehuman.wardrobe import Garment, read_garment, skin_labels
from sapiens2.data.synthetic.backdrop import draw_backdrop, draw_light
from sapiens2.data.synthetic.camera import aim, draw_view
from sapiens2.data.synthetic.fabric import draw_fabric
from sapiens2.data.synthetic.figure import Figure, keypoint_slack
from sapiens2.data.synthetic.person import Person, draw_person
from sapiens2.data.synthetic.poses import draw_pose
from sapiens2.data.synthetic.scene import SPLITS, families, props
from sapiens2.data.synthetic.shot import Scene, photograph
from sapiens2.data.synthetic.surface import Mesh, assemble
from sapiens2.data.synthetic.vocabulary import CLASS

Array = np.ndarray
REVISION = 1
"""Raised whenever the same seed and files give other pixels or labels."""
DECIMETRE = 0.1
IRIS_ANGLE, PUPIL_ANGLE = np.cos(np.radians([30, 12]))
SHIRT_ENDS, TROUSERS_BEGIN = -0.25, 0.35
"""Heights between hip (0) and neck (1) that part shirts from trousers."""
LIMBS = ("upperarm01", "lowerarm01", "wrist", "upperleg01", "lowerleg01", "foot")
_GROUPS = {"helper-upper-teeth": "Upper_Teeth", "helper-lower-teeth": "Lower_Teeth", "helper-tongue": "Tongue"}
_EYES = {"helper-l-eye": "L", "helper-r-eye": "R"}
_MARKED = 0.5  # of a texture's range


@dataclass(frozen=True)
class _Dressed:
    """Triangles of a body and what it wears, at rest."""

    points: Array  # [V, 3] decimetres
    weights: Array  # [V, B]
    faces: Array  # [F, 3]
    codes: Array  # [F] material
    facing: Array  # [F] 1 skin, 0 cloth and hair, which show both sides


class Bodies:
    """The base mesh, rig, clothes, hair and shapes of a folder laid out as MakeHuman's data.

    Needs 3dobjs/base.obj, rigs/default.mhskel and rigs/default_weights.mhw; clothes/*/*.mhclo, hair/*/*.mhclo,
    mpfb/targets and mpfb/textures are used where they are. Raises MakeHumanError (a ValueError) for a file that is
    missing or does not fit the base mesh. The files are CC0; none of them is part of this project.
    """

    def __init__(self, folder: str | Path) -> None:
        root = Path(folder)
        self.base = read_surface(root / "3dobjs/base.obj")
        count = len(self.base.points)
        self.bones = read_skeleton(root / "rigs/default.mhskel", count)
        self.weights = read_weights(root / "rigs/default_weights.mhw", self.bones, count)
        self.shapes = Shapes(root, count)
        self._textures = root / "mpfb/textures"
        rig = Rig.of(self.bones, self.base.points)
        needed = ["head", "neck01", *(f"{bone}.{side}" for bone in LIMBS for side in "LR")]
        lacking = [name for name in needed if not rig.has(name)]
        if lacking:
            raise MakeHumanError(f"{root / 'rigs/default.mhskel'} lacks the bone {lacking[0]!r}")
        hip, neck = rig.head("upperleg01.L")[1], rig.head("neck01")[1]
        self._waist = (hip + SHIRT_ENDS * (neck - hip), hip + TROUSERS_BEGIN * (neck - hip))
        self._codes, self._drawn, self._skin = self._read_skin()
        clothes = self._garments(root / "clothes")
        self.suits = [garment for garment in clothes if not garment.is_shoes]
        self.shoes = [garment for garment in clothes if garment.is_shoes]
        self.hair = self._garments(root / "hair")

    def _garments(self, folder: Path) -> list[Garment]:
        """Clothes or hair in the order of their names; suits that are shirt and trousers in one are left out."""
        paths, hair = sorted(folder.glob("*/*.mhclo")), folder.name == "hair"
        found = [read_garment(path, self.base.points, self._waist, hair=hair) for path in paths]
        return [garment for garment in found if garment is not None]

    def _read_skin(self) -> tuple[Array, Array, Skin]:
        """Codes [F], whether each triangle is drawn [F], and what the landmarks need."""
        base = self.base
        codes = skin_labels(base.faces, self.weights, self.bones)
        body = base.groups == "body"
        jaw = below(self.bones, "jaw")
        lower = (self.weights[base.faces].sum(1) @ jaw) > 1.5
        lips, mouth = self._marked("mpfb_lips.jpg") & body, self._marked("mpfb_inside-mouth.jpg") & body
        codes[mouth] = materials.MOUTH
        codes[lips] = np.where(lower[lips], CLASS["Lower_Lip"], CLASS["Upper_Lip"])
        drawn = body.copy()
        for group, name in _GROUPS.items():
            codes[base.groups == group] = CLASS[name]
            drawn |= base.groups == group
        eyes = {}
        for group, letter in _EYES.items():
            mine = base.groups == group
            drawn |= mine
            eyes[letter] = np.unique(base.faces[mine])
            if mine.any():
                codes[mine] = _eye_codes(base.points[base.faces[mine]].mean(1), base.points[eyes[letter]].mean(0))
        bodily = np.zeros(len(base.points), bool)
        bodily[base.faces[body]] = True
        ears = np.unique(base.faces[self._marked("mpfb_ears.jpg") & body])
        owner = self.weights.argmax(1)
        return codes, drawn, Skin(base.points, owner, bodily, eyes, np.unique(base.faces[lips]), ears)

    def _marked(self, name: str) -> Array:
        """bool [F]: triangles whose middle a grey texture marks; none without that texture."""
        path = self._textures / name
        if not path.exists():
            return np.zeros(len(self.base.faces), bool)
        import cv2

        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise MakeHumanError(f"{path} is no picture that can be read")
        middle = np.nan_to_num(self.base.texture.mean(1), nan=0.0)
        x = np.clip((middle[:, 0] * picture.shape[1]).astype(int), 0, picture.shape[1] - 1)
        y = np.clip(((1 - middle[:, 1]) * picture.shape[0]).astype(int), 0, picture.shape[0] - 1)
        return np.asarray(picture[y, x] > 255 * _MARKED)

    def render(self, seed: int, height: int, width: int, split: str = "test") -> Scene:
        """The scene of a seed: poses, colours, patterns, background and light of that split of the synthetic people.

        Keypoints without a place on such bodies have visibility 0. Raises ValueError as `synthetic.render` does.
        """
        poses, looks = families(split, height, width)
        rng = np.random.default_rng([REVISION, 1000 + SPLITS.index(split), seed])
        angles = draw_pose(rng, poses)
        person = draw_person(rng, looks, angles.seated)
        female = bool(rng.random() < 0.5)
        base = self.base.points + self.shapes.draw(rng, female)
        dressed = self._dress(rng, base, person, female)
        rig = Rig.of(self.bones, base)
        posed = pose(rig, turns(rig, angles, person.face.mouth_open))
        figure, landmarks = self._figure(rig, posed, base)
        points = posed.skin(dressed.points, dressed.weights) * DECIMETRE
        figure.ground = float(points[:, 1].min())
        camera = aim(draw_view(rng), points, figure.crown, height, width)
        backdrop, light, prop = draw_backdrop(rng, looks), draw_light(rng), draw_fabric(rng, looks, 0.8)
        mesh = _mesh(dressed, points)
        sheets = props(rng, figure, angles.seated)
        if sheets:
            mesh = _joined(mesh, assemble(sheets))
        paint = materials.painter(person, prop)
        scene = photograph(rng, mesh, paint, figure, camera, backdrop, light, (height, width), angles.family)
        return _without(scene, ~landmarks.placed)

    def _figure(self, rig: Rig, posed: Posed, base: Array) -> tuple[Figure, Landmarks]:
        landmarks = find_landmarks(rig, replace(self._skin, points=base))
        points = landmarks.points(posed, posed.skin(base, self.weights)) * DECIMETRE
        top = posed.move(rig.index("head"), base[self._skin.drawn]) * DECIMETRE
        head = below(self.bones, "head")[self._skin.owner[self._skin.drawn]]
        crown = float(top[head, 1].max()) if head.any() else float(top[:, 1].max())
        return Figure([], points, keypoint_slack(), 0.0, crown), landmarks

    def _dress(self, rng: np.random.Generator, base: Array, person: Person, female: bool) -> _Dressed:
        """The body in a suit, with shoes and hair by chance; what the folder lacks is left out."""
        tag = "Female" if female else "Male"
        suits = [suit for suit in self.suits if tag in suit.fit.tags] or self.suits
        drawn = [_pick(rng, garments) for garments in (suits, self.shoes, self.hair)]
        keep = (True, person.outfit.shoes is not None, not person.hair.bald)
        worn = [garment if kept else None for garment, kept in zip(drawn, keep)]
        hidden = np.zeros(len(base), bool)
        points, weights, faces, codes, facing = [base], [self.weights], [], [], []
        start = len(base)
        for garment in worn:
            if garment is not None:
                hidden[garment.fit.hidden] = True
                points.append(garment.points(base))
                weights.append(garment.weights(self.weights))
                faces.append(garment.surface.faces + start)
                codes.append(garment.labels)
                facing.append(np.zeros(len(garment.labels)))
                start += len(points[-1])
        shown = self._drawn & ~hidden[self.base.faces].all(1)
        faces.insert(0, self.base.faces[shown])
        codes.insert(0, self._codes[shown])
        facing.insert(0, np.ones(int(shown.sum())))
        joined = [np.concatenate(parts) for parts in (points, weights, faces, codes, facing)]
        used, index = np.unique(joined[2], return_inverse=True)
        return _Dressed(joined[0][used], joined[1][used], index.reshape(-1, 3), joined[3], joined[4])


def _pick(rng: np.random.Generator, garments: list[Garment]) -> Garment | None:
    number = int(rng.integers(1 << 30))
    return garments[number % len(garments)] if garments else None


def _eye_codes(middles: Array, centre: Array) -> Array:
    """Material of an eyeball's triangles by how far they are turned from the front."""
    out = middles - centre
    facing = out[:, 2] / np.maximum(np.linalg.norm(out, axis=1), 1e-9)
    codes = np.where(facing > IRIS_ANGLE, materials.IRIS, materials.EYEBALL)
    return np.where(facing > PUPIL_ANGLE, materials.PUPIL, codes)


def _mesh(dressed: _Dressed, points: Array) -> Mesh:
    """Posed triangles with smooth normals; surface coordinates are places at rest, in metres."""
    corners = points[dressed.faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(points)
    for corner in range(3):
        np.add.at(normals, dressed.faces[:, corner], flat)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    rest = dressed.points * DECIMETRE
    coords = np.stack([rest[:, 0] + rest[:, 2], rest[:, 1]], 1)
    side = np.zeros(len(dressed.faces), np.uint8)
    return Mesh(points, normals, coords, dressed.faces, dressed.facing.astype(np.float32), dressed.codes, side)


def _joined(body: Mesh, thing: Mesh) -> Mesh:
    """A body and what stands by it, painted as a prop."""
    return Mesh(
        np.concatenate([body.points, thing.points]),
        np.concatenate([body.normals, thing.normals]),
        np.concatenate([body.coords, thing.coords]),
        np.concatenate([body.faces, thing.faces + len(body.points)]),
        np.concatenate([body.facing, thing.facing]),
        np.concatenate([body.part, np.full(len(thing.part), materials.PROP, np.uint8)]),
        np.concatenate([body.side, thing.side]),
    )


def _without(scene: Scene, gone: Array) -> Scene:
    """The scene without keypoints [308] that have no place."""
    keypoints, space, seen = scene.keypoints.copy(), scene.keypoints_3d.copy(), scene.visibility.copy()
    keypoints[gone], space[gone], seen[gone] = 0, 0, 0
    return replace(scene, keypoints=keypoints, keypoints_3d=space, visibility=seen)
