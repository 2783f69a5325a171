"""A root with a small selection, batches of it for annotation tools, and what an annotator makes of them."""

import io

import numpy as np
from PIL import Image

from components.artifacts import Store
from components.attempt import Attempt
from components.labels import import_labels
from components.manifest import CodeRef, InputRef, Manifest
from curation.tables import (
    ATTRIBUTES,
    CLUSTERS,
    DECISIONS,
    DEDUPED,
    DETECTIONS,
    IMAGES,
    REJECTS,
    SOURCES,
    from_rows,
    image_id,
    scores_schema,
    source_id,
)
from sapiens2.data.annotation import Person, PictureLabels, read_batch, tool
from sapiens2.tasks.vocabulary import keypoints

SIZE = (48, 64)  # height, width
COUNT = 8
AREA = 1234.5  # that whoever is labelled covers; COCO's files alone can say it


def commit(store, kind, tables, *, version=None, config=None, **inputs):
    attempt = Attempt(store.root, kind, version or f"{len(kind):016x}")
    record = attempt.write_partition("all", tables, {})
    manifest = Manifest(
        kind=kind,
        version=attempt.version,
        step=kind,
        config=config or {},
        inputs=[InputRef(role=role, kind=a.kind, version=a.version) for role, a in inputs.items()],
        metrics={"rows_in": COUNT, "kept": COUNT, "images": COUNT, "dropped": {}},
        code=CodeRef(package_version="0"),
        start="2026-01-01",
        end="2026-01-01",
    )
    artifact = attempt.publish(manifest, {"all": record}, None, [])
    store.tag(f"latest/{kind}", artifact)
    return artifact


NSFW = (None, 0.1, 0.2, 0.49, None, 0.0, 0.3, 0.4)
"""The score of each picture: none of them is blurred."""


def curate(tmp_path, nsfw=NSFW):
    """Store, selection and pool of eight pictures in four clusters; 6 and 7 are near-duplicates of each other."""
    store, pool = Store(str(tmp_path / "root")), tmp_path / "pool"
    pool.mkdir()
    encoded = {}
    for k in range(COUNT):
        out = io.BytesIO()
        Image.fromarray(np.full((*SIZE, 3), 20 * k, np.uint8)).save(out, "PNG")
        (pool / f"{k}.png").write_bytes(out.getvalue())
        encoded[f"{k}.png"] = out.getvalue()
    ids = {name: image_id(data) for name, data in encoded.items()}
    images = commit(
        store,
        "images",
        {
            "sources": from_rows(
                [{"source_id": source_id(n), "source": n, "image_id": i} for n, i in ids.items()], SOURCES
            ),
            "rejects": from_rows([], REJECTS),
            "images": from_rows(
                [
                    {"image_id": i, "source": n, "n_sources": 1, "format": "PNG", "bytes": encoded[n]}
                    | {"width": SIZE[1], "height": SIZE[0], "orientation": 1}
                    for n, i in ids.items()
                ],
                IMAGES,
            ),
        },
    )
    boxes = {"boxes": [[2.0, 3.0, 50.0, 45.0], [0.0, 0.0, 5.0, 5.0]], "box_scores": [0.9, 0.1]}
    found = from_rows([{"image_id": i, **boxes, "refined": [True, False]} for i in ids.values()], DETECTIONS)
    detections = commit(store, "detections", {"data": found}, images=images)
    groups = {i: list(ids.values())[6] if k >= 6 else i for k, i in enumerate(ids.values())}
    deduped = [{"image_id": i, "keep": True, "group_id": group} for i, group in groups.items()]
    deduped = commit(store, "deduped", {"data": from_rows(deduped, DEDUPED)}, images=images)
    rows = [{"image_id": i, "path": [k // 2], "distance": 0.0} for k, i in enumerate(ids.values())]
    clusters = commit(store, "clusters", {"data": from_rows(rows, CLUSTERS)}, deduped=deduped)
    kept = {
        "data": from_rows([{"image_id": i, "keep": True} for i in ids.values()], DECISIONS),
        "attributes": from_rows([], ATTRIBUTES),
    }
    empty = dict.fromkeys(scores_schema(2, 2).names)
    rows = [empty | {"image_id": i, "scored": True, "nsfw": n} for i, n in zip(ids.values(), nsfw, strict=True)]
    scores = commit(store, "scores", {"data": from_rows(rows, scores_schema(2, 2))}, images=images)
    made = {"images": images, "detections": detections, "scores": scores, "deduped": deduped, "clusters": clusters}
    return store, commit(store, "selection", kept, **made), pool


def label(folder, picked=None):
    """What an annotator does: everybody has a nose and seven more points; the file as the tool exports it."""
    batch = read_batch(folder)
    done = folder / "done"
    done.mkdir(exist_ok=True)
    points = np.zeros((len(keypoints()), 3))
    points[:8] = [[4.0 * k + 5, 3.0 * k + 6, 2] for k in range(8)]
    given = {
        p.name: PictureLabels(people=[Person(points, (2.0, 3.0, 60.0, 40.0), area=AREA)])
        for p in batch.pictures[:picked]
    }
    bare = batch.model_copy(update={"pictures": tuple(p.model_copy(update={"boxes": ()}) for p in batch.pictures)})
    tool(batch.tool).write(done, bare, given)
    return done / tool(batch.tool).file, points


def brought_back(store, folder, file, **more):
    options = {"tool": "", "unlabelled": "background", "licence": "ours"} | more
    return import_labels(store, file, folder, **options)
