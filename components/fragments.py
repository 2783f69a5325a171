"""What a step publishes for the report, as HTML: the renderer lives with the dataset card, which uses it too."""

from __future__ import annotations

from curation.audit.page import render_fragment, render_section

__all__ = ["render_fragment", "render_section"]
