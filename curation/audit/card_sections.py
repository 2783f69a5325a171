"""The dataset card's sections: facts and sampled pictures as parts of a fragment (see curation.audit.page)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.audit import contact_sheet, dataset_facts
from curation.audit.axes import number
from curation.audit.copies import likeness
from curation.audit.dataset_facts import Row, Tables

Section = dict[str, Any]
Facts = Mapping[str, Any]

LISTED = 15  # origins or licences that get a bar of their own


@dataclass(frozen=True)
class Described:
    """What is written under a picture: its name, and its size with that of its largest person."""

    name: str
    size: str


def describe(tables: Tables, ids: Sequence[str], min_person_score: float) -> dict[str, Described]:
    """Names and sizes of the given images, as far as the tables have them."""
    person: dict[str, float] = {}
    for row in dataset_facts.rows_of(tables, "detections", ("image_id", "boxes", "box_scores"), ids):
        pairs = zip(row["boxes"] or [], row["box_scores"] or [], strict=True)
        sides = [min(b[2] - b[0], b[3] - b[1]) for b, score in pairs if score >= min_person_score]
        if sides:
            person[row["image_id"]] = max(sides)
    found = {}
    for row in dataset_facts.rows_of(tables, "images", ("image_id", "source", "width", "height"), ids):
        i = row["image_id"]
        size = f"{row['width']}×{row['height']}" + (f", person {person[i]:.0f} px" if i in person else "")
        found[i] = Described(dataset_facts.short_name(row["source"] or i), size)
    return found


class Pictures:
    """Contact sheets from thumbnails; blurs what nobody should have to look at, and counts what it drew."""

    def __init__(self, images: Mapping[str, Described], thumbnails: Mapping[str, bytes], blurred: set[str]) -> None:
        self.images = images
        self.thumbnails = thumbnails
        self.blurred = blurred
        self.drawn = 0

    def item(self, image_id: str, sub: str, *, group: str = "", mark: bool = False) -> Section | None:
        """One picture with its name; None without a thumbnail."""
        jpeg = self.thumbnails.get(image_id)
        if jpeg is None:
            return None
        self.drawn += 1
        name = self.images[image_id].name if image_id in self.images else image_id[:12]
        if image_id in self.blurred:
            jpeg, sub = contact_sheet.blurred(jpeg), f"blurred · {sub}" if sub else "blurred"
        return contact_sheet.sheet_item(jpeg, name, sub, group=group, mark=mark)

    def size(self, image_id: str) -> str:
        """The upright size and the largest person's short side, where known."""
        return self.images[image_id].size if image_id in self.images else ""

    def kept(self, ids: Sequence[str], total: int) -> list[Section]:
        """A sample of the dataset."""
        note = share(len(ids), total)
        return self.sheet("Kept", [self.item(i, self.size(i)) for i in ids], note)

    def dropped(
        self, chosen: Mapping[tuple[str, str], Sequence[str]], decisions: Mapping[tuple[str, str], Row], facts: Facts
    ) -> list[Section]:
        """A sheet per reason, each picture with what was measured and what it was held against."""
        found: list[Section] = []
        for (step, reason), ids in chosen.items():
            items = [self.item(i, self.why(decisions[step, i])) for i in ids]
            note = share(len(ids), facts["dropped"][step][reason])
            found += self.sheet(f"Dropped by {step}: {reason.replace('_', ' ')}", items, note)
        return found

    def why(self, row: Row) -> str:
        """Which picture a duplicate is a copy of and how near; else what was measured against what it was held."""
        other = row.get("representative_id") or ""
        name = self.images[other].name if other in self.images else other[:12]
        return likeness(row["reason"], row.get("value"), row.get("threshold"), name) or against(row)

    def groups(self, groups: Sequence[Sequence[Row]], sizes: Sequence[int]) -> list[Section]:
        """Duplicates: each kept picture, outlined, before those it stands for."""
        items = [
            self.item(
                row["image_id"],
                "kept" if row["keep"] else self.why(row) or (row["reason"] or "").replace("_", " "),
                group=f"Group {index}: {number(size)} images" + (f", {len(rows)} shown" if size > len(rows) else ""),
                mark=bool(row["keep"]),
            )
            for index, (rows, size) in enumerate(zip(groups, sizes, strict=True), start=1)
            for row in rows
        ]
        return self.sheet("Duplicate groups", items, "The largest groups; the kept picture stands first, outlined.")

    def sheet(self, title: str, items: Iterable[Section | None], note: str) -> list[Section]:
        """The sheet, or none when it has no pictures; those without a thumbnail are counted in the note."""
        items = list(items)
        there = [item for item in items if item is not None]
        absent = len(items) - len(there)
        more = f"{note} {absent} without a thumbnail." if absent else note
        return [contact_sheet.sheet(title, there, more)] if there else []


def share(shown: int, total: int) -> str:
    """How many of how many a sheet shows."""
    return f"All {number(total)}." if shown == total else f"{number(shown)} of {number(total)}, drawn at random."


def against(row: Row) -> str:
    """What was measured and what it was held against."""
    value, threshold = row.get("value"), row.get("threshold")
    if value is None:
        return ""
    if threshold is None:
        return number(value, 3)
    sign = "<" if value < threshold else ">" if value > threshold else "="
    return f"{number(value, 3)} {sign} {number(threshold, 3)}"


def opening(facts: Facts) -> Section:
    """What this is, in a sentence or two."""
    groups, largest = facts["duplicates"]["groups"], facts["duplicates"]["largest"]
    body = f"{number(facts['images'])} images were selected from {number(facts['sources'])} sources."
    if groups:
        plural = "s" if groups > 1 else ""
        body += f" {number(groups)} group{plural} of near-duplicates found, the largest of {number(largest)} images."
    return {"type": "text", "title": "", "body": body}


def histograms(facts: Facts) -> list[Section]:
    """What was measured; those with a threshold first."""
    ordered = sorted(facts["histograms"], key=lambda h: not h["thresholds"])
    return [
        {
            "type": "histogram",
            "title": h["title"],
            "edges": h["edges"],
            "counts": h["counts"],
            "threshold": h["thresholds"],
            "unit": h["unit"],
            "note": f"{number(h['beyond'])} more beyond the right end." if h["beyond"] else "",
        }
        for h in ordered
    ]


def balance(facts: Facts) -> list[Section]:
    """Images per bin before and after, an axis each; bounds in the note."""
    axes: dict[str, list[Row]] = {}
    for row in facts["balance"]:
        axes.setdefault(row["axis"], []).append(row)
    found: list[Section] = []
    for axis, rows in axes.items():
        bounds = [
            f"{row['bin']} {name} {number(row[key])}"
            for row in rows
            for key, name in (("floor", "at least"), ("cap", "at most"))
            if row[key] is not None and (key == "cap" or row[key] > 0)
        ]
        series = [{"name": side, "values": [row[side] for row in rows]} for side in ("before", "after")]
        found.append(
            {
                "type": "bars",
                "title": f"Balance: {axis.replace('_', ' ')}",
                "labels": [row["bin"] for row in rows],
                "series": series,
                "note": f"Bounds: {', '.join(bounds)}." if bounds else "",
            }
        )
    return found


def counts(facts: Facts) -> list[Section]:
    """Rejects, kinds of duplicate pairs, licences, origins, seconds: one bar chart each, where there is something."""
    seconds = {step: round(value, 2) for step, value in facts["seconds"].items()}
    return [
        *bars("Sources rejected, by reason", "sources", facts["rejects"]),
        *bars("Pairs found alike, by kind", "pairs", facts["duplicates"]["pairs"]),
        *origins(facts),
        *bars("Time per step", "seconds", seconds, "Seconds."),
    ]


def origins(facts: Facts) -> list[Section]:
    """Licences and sources of the dataset."""
    return [
        *bars("Licences of the dataset", "images", facts["licences"], "As the sources state them."),
        *bars("Where the dataset comes from", "images", facts["origins"], "Hosts, archives or folders."),
    ]


def bars(title: str, name: str, values: Mapping[str, float], note: str = "") -> list[Section]:
    """A bar per key, the rest beyond LISTED summed up in one; nothing for no values."""
    pairs = list(values.items())
    shown, rest = pairs[:LISTED], pairs[LISTED:]
    if rest:
        shown.append((f"{len(rest)} others", sum(value for _, value in rest)))
    series = [{"name": name, "values": [value for _, value in shown]}]
    section = {"type": "bars", "title": title, "labels": [key for key, _ in shown], "series": series, "note": note}
    return [section] if shown else []
