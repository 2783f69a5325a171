"""What is true and what the model says, drawn alike, for the eye to compare."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sapiens2.tasks.drawing import draw_albedo, draw_depth, draw_keypoints, draw_normals, draw_parts
from sapiens2.tasks.predict import Prediction
from sapiens2.tasks.sample import Sample

Picture = NDArray[np.uint8]
CAPTION = "picture | truth | answer"


def truth_and_answer(task: str, sample: Sample, found: Prediction) -> tuple[Picture, Picture]:
    """The label of a sample and the model's answer, drawn alike; uint8 [H, W, 3] each."""
    image, valid = sample.image, sample.valid
    if task == "pose":
        assert sample.keypoints is not None and sample.labelled is not None and found.keypoints is not None
        drawn = [draw_keypoints(image, points, sample.labelled) for points in (sample.keypoints, found.keypoints)]
    elif task == "segmentation":
        assert sample.mask is not None and found.labels is not None
        drawn = [draw_parts(image, labels) for labels in (sample.mask, found.labels)]
    elif task == "normal":
        assert sample.normals is not None and found.normals is not None and valid is not None
        drawn = [draw_normals(normals, valid) for normals in (sample.normals, found.normals)]
    elif task == "pointmap":
        assert sample.points is not None and found.points is not None and valid is not None
        near, far = np.percentile(sample.points[..., 2][valid], (2, 98)) if valid.any() else (0.0, 1.0)
        drawn = [draw_depth(points, valid, float(near), float(far)) for points in (sample.points, found.points)]
    else:
        assert sample.albedo is not None and found.albedo is not None and valid is not None
        drawn = [draw_albedo(albedo, valid) for albedo in (sample.albedo, found.albedo)]
    return drawn[0], drawn[1]
