"""card: the dataset card a data lead would show, as one HTML page, as JSON, and as a fragment for the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from curation.audit import card_sections, dataset_facts
from curation.audit.axes import number
from curation.audit.contact_sheet import BLUR_NSFW
from curation.audit.dataset_facts import Metrics, Row, Tables
from curation.audit.page import render_fragment, render_page
from curation.config import Config, recipe
from curation.stages.result import StageResult


class CardConfig(Config):
    """How much the card shows."""

    title: str = recipe("Dataset card", "heading of the page, as text", min_length=1)
    kept_samples: int = recipe(24, "pictures of the selection, as a count", ge=0, le=200)
    dropped_samples: int = recipe(8, "pictures per reason of dropping, as a count", ge=0, le=100)
    reasons: int = recipe(16, "reasons that get a contact sheet, most frequent first, as a count", ge=0, le=64)
    duplicate_groups: int = recipe(8, "groups of duplicates, largest first, as a count", ge=0, le=64)
    group_pictures: int = recipe(7, "pictures per group of duplicates, as a count", ge=2, le=50)
    bins: int = recipe(32, "bins of a histogram, as a count", ge=4, le=200)
    blur_reasons: tuple[str, ...] = recipe(
        ("unsafe", "nsfw", "denylisted"), "beginnings of the reasons whose pictures are blurred, as text"
    )
    blur_nsfw: float = recipe(
        BLUR_NSFW, "NSFW score from which a picture is blurred wherever it stands, 0..1", ge=0, le=1
    )
    seed: int = recipe(0, "seed of the samples, as an integer")


def profile_config(profile: str) -> CardConfig:
    """The same card in every profile."""
    return CardConfig()


@dataclass(frozen=True)
class Samples:
    """The pictures that the card shows, by image_id."""

    kept: list[str]
    dropped: dict[tuple[str, str], list[str]]  # (step, reason)
    groups: list[list[Row]]
    group_sizes: list[int]

    def ids(self) -> list[str]:
        """All of them, each once, sorted."""
        groups = [row["image_id"] for rows in self.groups for row in rows]
        return sorted({*self.kept, *(i for ids in self.dropped.values() for i in ids), *groups})


def samples(tables: Tables, config: CardConfig) -> Samples:
    """Which pictures the card shows: the same for the same tables, whatever the order of their rows."""
    drops = dataset_facts.drops(tables)
    frequent = set(sorted(drops, key=lambda key: (-len(drops[key]), key))[: config.reasons])
    groups = dataset_facts.duplicate_groups(tables)[: config.duplicate_groups]
    return Samples(
        kept=dataset_facts.sample(dataset_facts.final_ids(tables), config.kept_samples, config.seed),
        dropped={
            key: dataset_facts.sample(ids, config.dropped_samples, config.seed)
            for key, ids in drops.items()
            if key in frequent
        },
        groups=[rows[: config.group_pictures] for rows in groups],
        group_sizes=[len(rows) for rows in groups],
    )


def wanted_thumbnails(tables: Tables, config: CardConfig) -> list[str]:
    """The image_ids whose thumbnails `run` can use (see contact_sheet.thumbnail); bounded by the config."""
    return samples(tables, config).ids()


def run(tables: Tables, metrics: Metrics, thumbnails: Mapping[str, bytes], config: CardConfig) -> StageResult:
    """The card of a dataset: files card.html and card.json, and a fragment for the report.

    The fragment leaves out funnel, histograms, balance and times: a report shows those from the steps that made them.

    `tables` by name as in curation.tables, `images` without bytes; `metrics` by step; `thumbnails` JPEG by image_id. A
    picture without a thumbnail is left out of its sheet and counted in the sheet's note.
    """
    shown = samples(tables, config)
    facts = collect(tables, metrics, config)
    decisions = decisions_of(tables, shown.ids())
    named = {*shown.ids(), *(row["representative_id"] for row in decisions.values())} - {None}
    chosen = card_sections.describe(tables, sorted(named), dataset_facts.min_person_score(metrics))
    pictures = card_sections.Pictures(chosen, thumbnails, to_blur(tables, config))
    own = [  # what no other step's fragment shows
        *pictures.kept(shown.kept, facts["images"]),
        *pictures.dropped(shown.dropped, decisions, facts),
        *pictures.groups(shown.groups, shown.group_sizes),
    ]
    funnel = {"type": "funnel", "title": "From the pool to the dataset", "steps": facts["funnel"]}
    measured = [*card_sections.histograms(facts), *card_sections.balance(facts)]
    opening = card_sections.opening(facts)
    page = [opening, funnel, *own, *measured, *card_sections.counts(facts)]
    body = Markup(render_fragment({"sections": page}))
    subtitle = f"{number(facts['images'])} images from {number(facts['sources'])} sources"
    record = {**facts, "samples": {"kept": shown.kept, "dropped": nested(shown.dropped)}}
    return StageResult(
        tables={},
        metrics={"rows_in": facts["images"], "kept": facts["images"], "dropped": {}, "pictures": pictures.drawn},
        fragment={
            "title": config.title,
            "sections": [opening, *own, *card_sections.origins(facts)],
        },
        files={
            "card.html": render_page(config.title, body, subtitle=subtitle).encode(),
            "card.json": (json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode(),
        },
    )


def collect(tables: Tables, metrics: Metrics, config: CardConfig) -> dict[str, Any]:
    """Everything the card says, as JSON-able facts."""
    final = dataset_facts.final_ids(tables)
    limits = dataset_facts.thresholds(metrics)
    measured = dataset_facts.measurements(tables, dataset_facts.min_person_score(metrics))
    groups = dataset_facts.duplicate_groups(tables)
    return {
        "title": config.title,
        "sources": len(tables["sources" if "sources" in tables else "images"]),
        "images": len(final),
        "funnel": dataset_facts.funnel(metrics),
        "rejects": tally(dataset_facts.column(tables, "rejects", "reason")),
        "dropped": nested({key: len(ids) for key, ids in dataset_facts.drops(tables).items()}),
        "histograms": [histogram_fact(name, values, limits.get(name, []), config) for name, values in measured.items()],
        "duplicates": {
            "groups": len(groups),
            "largest": len(groups[0]) if groups else 0,
            "pairs": tally(dataset_facts.column(tables, "edges", "kind")),
        },
        "balance": tables["balance"].to_pylist() if "balance" in tables else [],
        "licences": tally(dataset_facts.licences(tables, final)),
        "origins": tally(dataset_facts.origins(tables, final)),
        "seconds": {step: m["seconds"] for step, m in metrics.items() if m.get("seconds") is not None},
    }


def histogram_fact(name: str, values: list[float], bounds: list[float], config: CardConfig) -> dict[str, Any]:
    """One measured column: edges, counts, thresholds."""
    title, unit = dataset_facts.MEASURES[name]
    edges, counts, beyond = dataset_facts.histogram(values, config.bins, bounds)
    found = {"column": name, "title": title, "unit": unit, "edges": edges, "counts": counts, "thresholds": bounds}
    return {**found, "measured": len(values), "beyond": beyond}


def tally(values: Iterable[str]) -> dict[str, int]:
    """Counts by value, most first, ties by name."""
    return dict(sorted(Counter(values).items(), key=lambda kv: (-kv[1], kv[0])))


def nested(by_key: Mapping[tuple[str, str], Any]) -> dict[str, dict[str, Any]]:
    """{(step, reason): value} as {step: {reason: value}}."""
    found: dict[str, dict[str, Any]] = {}
    for (step, reason), value in by_key.items():
        found.setdefault(step, {})[reason] = value
    return found


def decisions_of(tables: Tables, ids: Iterable[str]) -> dict[tuple[str, str], Row]:
    """The decisions on `ids` by (step, image_id)."""
    keys = ("image_id", "reason", "value", "threshold", "representative_id")
    wanted = list(ids)
    return {
        (step, row["image_id"]): row
        for step, name in dataset_facts.DECIDING
        for row in dataset_facts.rows_of(tables, name, keys, wanted)
    }


def to_blur(tables: Tables, config: CardConfig) -> set[str]:
    """Images dropped for a reason that nobody should have to look at, or scored at the NSFW bound or above."""
    found = {
        image
        for (_, reason), ids in dataset_facts.drops(tables).items()
        if reason.startswith(config.blur_reasons)
        for image in ids
    }
    if "scores" in tables:
        for row in dataset_facts.rows_of(tables, "scores", ("image_id", "nsfw")):
            if row["nsfw"] is not None and row["nsfw"] >= config.blur_nsfw:
                found.add(row["image_id"])
    return found
