"""Pictures out to annotation tools and their labels back: COCO, CVAT, Label Studio."""

from sapiens2.data.annotation.batch import Batch, Picture, read_batch
from sapiens2.data.annotation.labels import Found, Person, PictureLabels, Region
from sapiens2.data.annotation.tools import TOOLS, Tool, tool

__all__ = [
    "TOOLS",
    "Batch",
    "Found",
    "Person",
    "Picture",
    "PictureLabels",
    "Region",
    "Tool",
    "read_batch",
    "tool",
]
