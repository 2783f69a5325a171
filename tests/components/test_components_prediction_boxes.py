"""Files of boxes: what each layout gives, and that a wrong one is refused by its name and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.prediction.boxes import read_boxes


def coco(path: Path, rows: list[dict[str, Any]], *categories: str) -> Any:
    """Reads a COCO file of a.jpg (3) and b.jpg (4), categories numbered from 1."""
    images = [{"id": 3, "file_name": "a.jpg"}, {"id": 4, "file_name": "b.jpg"}]
    data: dict[str, Any] = {"images": images, "annotations": [{"id": n, **row} for n, row in enumerate(rows, 1)]}
    if categories:
        data["categories"] = [{"id": n, "name": name} for n, name in enumerate(categories, 1)]
    path.write_text(json.dumps(data), encoding="utf-8-sig")  # as a CSV may be
    return read_boxes(str(path))


def test_boxes_in_coco_layout(tmp_path: Path) -> None:
    rows = [{"image_id": 3, "bbox": [10, 20, 5, 6]}, {"image_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1}]
    found = coco(tmp_path / "coco.json", rows)
    assert found.of("a.jpg", "").tolist() == [[10, 20, 15, 26]] and not len(found.of("b.jpg", ""))


def test_coco_boxes_of_dogs_are_no_people(tmp_path: Path) -> None:
    path, size = tmp_path / "coco.json", [0, 0, 5, 6]
    rows = [{"image_id": 3, "category_id": k, "bbox": size, "score": k / 10} for k in (1, 2, 3)]
    rows += [{"image_id": 4, "category_id": 3, "bbox": size}]
    found = coco(path, rows, "dog", "Person", "chair")
    assert found.of("a.jpg", "").tolist() == [[0, 0, 5, 6, 0.2]] and not len(found.of("b.jpg", ""))
    assert coco(path, rows[:1], "worker").of("a.jpg", "").tolist() == [[0, 0, 5, 6, 0.1]]
    with pytest.raises(ValueError, match="for categories: none is named person, they are dog, chair, cat: rename"):
        coco(path, rows, "dog", "chair", "cat")
    with pytest.raises(ValueError, match=r"for annotation 2: it has category 2, which `categories` does not list"):
        coco(path, rows, "person")
    with pytest.raises(ValueError, match=r"a\.jpg: some boxes have a score and some have none"):
        coco(path, [rows[0], {"image_id": 3, "bbox": size}])
    for wrong, said in (
        ({"image_id": 3}, "'bbox' is missing"),
        ({"image_id": 9, "bbox": size}, "it is of image 9"),
        ({"image_id": 3, "bbox": None}, "NoneType"),
    ):
        with pytest.raises(ValueError, match=rf"coco\.json looks like COCO but for annotation 2: .*{said}"):
            coco(path, [rows[0], wrong])


def nested(path: Path, boxes: list[Any], scores: list[Any] | None = None) -> Any:
    """Reads a Parquet file of pictures 0, 1, ... with these boxes."""
    columns = {"image": [str(k) for k in range(len(boxes))]}
    table = pa.table(columns | {"boxes": pa.array(boxes, pa.list_(pa.list_(pa.float64())))})
    if scores is not None:
        table = table.append_column("box_scores", pa.array(scores, pa.list_(pa.float64())))
    pq.write_table(table, path)
    return read_boxes(str(path))


def test_nulls_and_ragged_scores_in_a_parquet_of_boxes(tmp_path: Path) -> None:
    path, box = tmp_path / "boxes.parquet", [1.0, 2.0, 30.0, 40.0]
    found = nested(path, [[box], None, []], [[0.5], None, None])
    assert {name: len(found.of(name, "")) for name in "012"} == {"0": 1, "1": 0, "2": 0}
    for boxes, scores, said in (
        ([[box], [box]], [[0.5], [0.5, 0.6]], "row 1: 1 boxes have 2 box_scores"),
        ([[box], [box]], [[0.5], []], "row 1: 1 boxes have 0 box_scores"),
        ([[box], [box, None]], None, "row 1: None is not a box of numbers"),
        ([[box, None]], [[0.5, 0.5]], "row 0: None is not a box of numbers"),
        ([[box]], [[None]], "row 0: .*None.* is not a box of numbers"),
    ):
        with pytest.raises(ValueError, match=rf"boxes\.parquet, {said}"):
            nested(path, boxes, scores)
    pq.write_table(pa.table({"image": ["a", None], "x0": [1, 1], "y0": [1, 1], "x1": [9, 9], "y1": [9, 9]}), path)
    with pytest.raises(ValueError, match=r"boxes\.parquet, row 1 names no picture"):
        read_boxes(str(path))
    pq.write_table(pa.table({"image": ["a"], "boxes": [5]}), path)
    with pytest.raises(ValueError, match=r"boxes\.parquet, row 0: boxes must be a list of boxes"):
        read_boxes(str(path))


def test_a_csv_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("image,x0,y0,x1,y1\n\u00e9.jpg,1,2,3,4\n", encoding="latin-1")
    with pytest.raises(ValueError, match=r"b\.csv is not CSV in UTF-8: .*save it as that"):
        read_boxes(str(tmp_path / "b.csv"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("b.json", '{"a.jpg": [[5, 5, 2, 9]]}', r"'a\.jpg': the box .* has no area; give the corners"),
        ("b.json", '{"a.jpg": [[5, 5, 2]]}', r"is not x0, y0, x1, y1"),
        ("b.json", "[1]", r"must map pictures to boxes"),
        ("b.json", "{", r"is not JSON"),
        ("b.json", '{"a.jpg": [[5, 5, 9, 1' + "0" * 400 + "]]}", r"'a\.jpg': .* is not a box of numbers"),
        ("b.csv", "image,x0,y0,x1\na,1,2,3\n", r"it needs image \(or image_id\) and x0, y0, x1, y1"),
        ("b.csv", "image,x0,y0,x1,y1\na,1,2,three,4\n", r"line 2: .* is not a box of numbers"),
        ("b.csv", "image,x0,y0,x1,y1\na,1,2,3,4\n\nb,1,2,3\n", r"b\.csv, line 4: .* is not a box of numbers"),
        ("b.csv", "image,x0,y0,x1,y1\n,1,2,3,4\n", r"b\.csv, line 2 names no picture"),
        ("b.csv", "image,x0,y0,x1,y1,score\na,1,2,3,4,.5\na,1,2,3,4,\n", r"a: some boxes have a score"),
        ("b.json", '{"a.jpg": ["1234"]}', r"'a\.jpg': '1234' is not x0, y0, x1, y1"),
        ("b.parquet", "PAR1 and no more", r"b\.parquet cannot be read as Parquet"),
        ("b.xml", "", r"boxes are read from \.json, \.csv, \.parquet"),
    ],
)
def test_wrong_box_files_are_refused_by_row(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_boxes(str(tmp_path / name))
