"""The notebook call, on the dozen pictures of the micro pool."""

import pyarrow.parquet as pq
import pytest

from components import Store, curate
from pipelines.sample_pool import build_sample_pool


def test_a_pool_becomes_a_selection_and_is_not_curated_twice(tmp_path):
    pool = build_sample_pool(tmp_path / "pool", size="micro")
    first = curate(str(pool), str(tmp_path / "root"), preset="micro")
    assert len(first.image_ids) >= 4
    exported = [
        i for files in first.shard_files.values() for f in files for i in pq.read_table(f)["image_id"].to_pylist()
    ]
    assert sorted(exported) == sorted(first.image_ids)
    assert first.dropped()["ingest"] == {"not_an_image": 1, "truncated": 1}
    again = curate(str(pool), str(tmp_path / "root"), preset="micro")
    assert again.image_ids == first.image_ids
    assert all(len(Store(str(tmp_path / "root")).versions(a.kind)) == 1 for a in again.artifacts.values())


def test_an_unknown_profile_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown profile 'huge'"):
        curate(str(tmp_path), str(tmp_path / "root"), profile="huge")
