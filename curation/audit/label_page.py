"""One self-contained page on which a person labels pictures with the keyboard; see templates/label.js."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from curation.audit.page import environment

UNSURE = "unsure"
_DIGITS = "1234567890abcdefghijklmnopqrtvwxyz"  # without s, which saves, and u, which is unsure


@dataclass(frozen=True)
class Shown:
    """A picture to label: JPEG bytes, already blurred where it must be, and what stands beneath it."""

    image_id: str
    jpeg: bytes
    about: str = ""


# What a rule asks for, by its reason.
QUESTIONS = {
    "no_person": "Is there a person in it?",
    "person_too_small": "Is a person in it large enough to learn from?",
    "extreme_aspect": "Is its shape that of an ordinary picture?",
    "not_realistic": "Is it a photograph, neither drawn nor rendered?",
    "text_overlay": "Is it free of text and marks laid over it?",
    "text_on_person": "Are the people in it free of text laid over them?",
    "unsafe": "Is it fit for anybody to see?",
    "flat": "Does it show more than flat areas?",
    "too_dark": "Is it bright enough?",
    "too_bright": "Is it dark enough?",
    "low_contrast": "Does it have enough contrast?",
    "blurred": "Is it sharp enough?",
    "low_aesthetic": "Is it a good picture?",
}


def yes_no(question: str) -> tuple[str, list[dict[str, str]]]:
    """The question and answers of a rule."""
    answers = [("y", "good", "yes"), ("n", "bad", "no"), ("u", UNSURE, "unsure")]
    return question, [{"key": key, "value": value, "label": label} for key, value, label in answers]


def choices(axis: str, bins: Sequence[str]) -> tuple[str, list[dict[str, str]]]:
    """The question and answers of an attribute. Raises ValueError for more bins than there are keys."""
    keys = _DIGITS.replace("u", "")
    if len(bins) > len(keys):
        raise ValueError(f"{axis} has {len(bins)} bins; at most {len(keys)} can be labelled with one key each")
    answers = [{"key": k, "value": b, "label": b.replace("_", " ")} for k, b in zip(keys, bins, strict=False)]
    return f"Which {axis.replace('_', ' ')} is it?", [*answers, {"key": "u", "value": UNSURE, "label": "unsure"}]


def label_page(
    spec: Mapping[str, Any], title: str, question: str, answers: Sequence[Mapping[str, str]], pictures: Sequence[Shown]
) -> str:
    """The page. `spec` goes into the file of labels as it is, and its `id` names the browser's memory."""
    items = [{"image_id": p.image_id, "jpeg": base64.b64encode(p.jpeg).decode(), "about": p.about} for p in pictures]
    data = json.dumps({"spec": dict(spec), "answers": list(answers), "items": items}, sort_keys=True)
    safe = Markup(data.replace("<", "\\u003c"))  # in a script element only `<` could end it
    template = environment().get_template("label.html.j2")
    return template.render(title=title, subtitle="", question=question, answers=answers, items=items, audit=safe)
