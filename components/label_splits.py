"""In which split the labels under a root have each group of near-duplicates: no picture is trained on and tested on.

Groups are those of one dedup. A picture that it does not know is in the group that its labels name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from components.artifacts import Artifact, Store
from components.steps import LABELS

COLUMNS = ["image_id", "group_id", "split"]
SHOWN = 5
Split = Literal["train", "val", "test"]
Splits = dict[str, dict[Split, str]]
"""By group, and by each split that it is in, the name of labels that say so; two splits where labels disagree."""


def groups_of(deduped: Artifact) -> dict[str, str]:
    """The group of every picture."""
    table = deduped.read(columns=["image_id", "group_id"])
    return dict(zip(table["image_id"].to_pylist(), table["group_id"].to_pylist(), strict=True))


def known_splits(store: Store, groups: Mapping[str, str]) -> Splits:
    """What all labels under the root say."""
    found: Splits = {}
    for labels in store.all(LABELS.kind):
        for row in labels.read(columns=COLUMNS).to_pylist():
            group = groups.get(row["image_id"], row["group_id"])
            found.setdefault(group, {}).setdefault(row["split"], repr(labels))
    return found


def adopted(batch: Any, groups: Mapping[str, str], known: Splits) -> Any:
    """A sapiens2.data.annotation.Batch with the splits that the labels have, where those agree among themselves."""

    def placed(picture: Any) -> Any:
        splits = list(known.get(groups.get(picture.image_id, picture.group), ()))
        return picture.model_copy(update={"split": splits[0]}) if len(splits) == 1 else picture

    return batch.model_copy(update={"pictures": tuple(placed(picture) for picture in batch.pictures)})


def refuse_other_splits(where: str, pictures: Iterable[Any], groups: Mapping[str, str], known: Splits) -> None:
    """Raises LabelError naming the pictures that labels have, or a duplicate of, in another split."""
    from sapiens2.data.labelled import LabelError

    told: list[str] = []
    torn: list[str] = []
    for picture in pictures:
        splits = known.get(groups.get(picture.image_id, picture.group), {})
        others = [f"{split} in {labels}" for split, labels in sorted(splits.items()) if split != picture.split]
        if others:
            told.append(f"{picture.name} is {picture.split} here, {', '.join(others)}")
            torn += [picture.name] if len(splits) > 1 else []
    if told:
        mend = ["import with --known-splits: it takes the splits of those labels into batch.json"]
        if torn:  # no split is left for them
            mend.append(f"delete the labels of {_listed(torn)}, which earlier labels have in two splits already")
        raise LabelError(
            where,
            f"has {len(told)} pictures in another split than labels that have them, or a near-duplicate of them: "
            f"{_listed(told)}",
            "; ".join(mend[len(torn) == len(told) :]),
        )


def refuse_trained_on(store: Store, checkpoint: Artifact, labels: Artifact, split: str) -> None:
    """Raises ValueError where a model was trained on pictures of the split that it is measured on, or duplicates.

    Only labels artifacts are looked at: other folders do not say which pictures of a pool they hold. The split `train`
    is measured by who wants to know how well the training data are fitted.
    """
    if split == "train":
        return
    asked = _in_split(labels, split)
    trained = {ref.role: ref for ref in checkpoint.manifest.inputs if ref.kind == LABELS.kind}
    for number, source in enumerate(checkpoint.manifest.config.get("sources", ()), 1):
        ref = trained.get(f"labels_{number}")
        if ref is None or not store.committed(ref.kind, ref.version):
            continue
        seen = _in_split(store.get(ref.kind, ref.version), source["split"])
        ids = {name for row in seen for name in row}
        both = sorted(image_id for image_id, group in asked if image_id in ids or group in ids)
        if both:
            raise ValueError(
                f"{checkpoint} was trained on {len(both)} of the {len(asked)} pictures of split {split} in {labels}, "
                f"or on near-duplicates of them, as split {source['split']} of {ref.kind}={ref.version}: "
                f"{_listed(both)}; measure on other labels, or fine-tune without that source"
            )


def _in_split(labels: Artifact, split: str) -> set[tuple[str, str]]:
    rows = labels.read(columns=COLUMNS).to_pylist()
    return {(row["image_id"], row["group_id"]) for row in rows if row["split"] == split}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "; ".join(names[:SHOWN]) + more
