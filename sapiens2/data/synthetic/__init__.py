"""Synthetic people: procedural humans with exact labels for every task, from a seed alone."""

from sapiens2.data.synthetic.scene import REVISION, SPLITS, Scene, render
from sapiens2.data.synthetic.sheet import contact_sheet, label_views

__all__ = ["REVISION", "SPLITS", "Scene", "contact_sheet", "label_views", "render"]
