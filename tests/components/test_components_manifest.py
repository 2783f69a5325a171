"""The published JSON schema is that of the code, and every old manifest_version stays readable."""

import json
from pathlib import Path

import pytest

from components.manifest import CodeRef, Manifest

SCHEMA = Path(__file__).parents[2] / "docs" / "manifest.schema.json"


def test_the_published_schema_is_that_of_the_code():
    assert json.loads(SCHEMA.read_text()) == Manifest.model_json_schema()


def test_a_manifest_survives_writing_and_reading():
    code = CodeRef(package_version="0.1", git_commit="ab", dirty=False)
    manifest = Manifest(
        kind="images", version="v", digest="00", step="ingest", config={"a": 1}, code=code, start="s", end="e"
    )
    assert Manifest.parse(manifest.dump(), "here") == manifest


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"manifest_version": 1}', b"\xff\xfe"])
def test_damage_of_any_kind_is_one_clear_error(damage):
    with pytest.raises(ValueError, match=r"the manifest here/manifest.json is damaged .* so that the step runs again"):
        Manifest.parse(damage, "here/manifest.json")
