"""A batch of pictures that somebody labels: batch.json beside the tool's own files says what each picture is."""

from __future__ import annotations

import json
from collections import Counter
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sapiens2.data.labelled.layout import LabelError

BATCH = "batch.json"
Split = Literal["train", "val", "test"]


class Picture(BaseModel):
    """One picture of a batch; sizes and boxes in pixels of the upright picture."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(description="as the tool's file calls it: a path below the batch, a URL or an absolute path")
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    image_id: str
    group: str = Field(description="of duplicates; one group lies in one split")
    split: Split = "train"
    boxes: tuple[tuple[float, float, float, float], ...] = Field(
        (), description="people that a detector found, x0 y0 x1 y1 from the picture's outer edge"
    )


class Batch(BaseModel):
    """What was exported, for whom, and from which artifacts."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    revision: Literal[1] = 1
    tool: str
    task: Literal["pose", "segmentation"]
    keypoints: str = Field("sapiens308", description="layout of the keypoints, for pose")
    made_from: dict[str, str] = Field(default_factory=dict, description="role -> version of the artifacts")
    pictures: tuple[Picture, ...]

    @cached_property
    def _by_name(self) -> dict[str, Picture]:
        found = {picture.name: picture for picture in self.pictures}
        short = Counter(PurePosixPath(picture.name).name for picture in self.pictures)
        for picture in self.pictures:
            last = PurePosixPath(picture.name).name
            if short[last] == 1:  # a file name that several folders have means none of them
                found.setdefault(last, picture)
        return found

    def find(self, name: str, where: str) -> Picture:
        """The picture that a tool's file means: by its path, its file name, or the end that an upload has left of it.

        Addresses are tried with their percent signs resolved, and as they stand. Raises LabelError for a picture that
        is not of the batch.
        """
        plain = name.split("?d=")[-1]
        # What Label Studio serves is quoted, so it means the resolved name where there is a picture of either.
        spelled = (unquote(plain), plain) if plain != name else (plain, unquote(plain))
        for served in spelled:
            short = PurePosixPath(served).name
            for candidate in (name, served, f"/{served}", short, short.partition("-")[2]):
                if candidate in self._by_name:
                    return self._by_name[candidate]
        raise LabelError(
            where, f"labels the picture {name!r}, which is not of the batch", "give the folder it was exported to"
        )

    def same_size(self, picture: Picture, width: float, height: float, where: str) -> None:
        """Raises LabelError when labels were made on a picture of another size."""
        if (round(width), round(height)) != (picture.width, picture.height):
            raise LabelError(
                where,
                f"was labelled at {width:g} x {height:g}, the picture {picture.name} is {picture.width} x "
                f"{picture.height}",
                "label the exported pictures, not resized ones",
            )


def write_batch(folder: Path, batch: Batch) -> None:
    """Write batch.json."""
    (folder / BATCH).write_text(batch.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_batch(folder: str | Path) -> Batch:
    """The batch that a folder was exported as. Raises LabelError when there is none or it is damaged."""
    path = Path(folder) / BATCH
    try:
        return Batch.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise LabelError(
            str(path), "is not there", "give the folder that `sapiens2 annotate export` has written"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError) as error:
        first = " ".join(str(error).split())[:160]
        raise LabelError(str(path), f"is damaged ({first})", "restore it, or export the batch again") from error
