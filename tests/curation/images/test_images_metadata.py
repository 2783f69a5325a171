"""What files say of their own origin, written by Pillow or by hand, read by us."""

from __future__ import annotations

import json
from typing import Any

from picture_makers import encode, quadrants
from PIL import Image as pillow
from PIL.PngImagePlugin import PngInfo

from curation.images import Reject, read_header
from curation.images.metadata import read_metadata

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmp:CreatorTool="Dream Painter 3" Iptc4xmpExt:'
    b'DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/></x:xmpmeta>'
)


def said(data: bytes) -> dict[str, Any]:
    header = read_header(data)
    assert not isinstance(header, Reject), header
    text = read_metadata(header)
    found: dict[str, Any] = json.loads(text)
    assert text == json.dumps(found, sort_keys=True, ensure_ascii=False)
    return found


def camera() -> pillow.Exif:
    exif = pillow.Exif()
    exif[271], exif[272], exif[305] = "Nikon", "Z 6", "Darkroom 2"
    exif.get_ifd(34665)[33434] = (1, 250)
    return exif


def test_a_silent_file() -> None:
    assert said(encode(quadrants(), "JPEG")) == {}


def test_a_camera_in_every_format_that_has_exif() -> None:
    expected = {"make": "Nikon", "model": "Z 6", "software": "Darkroom 2", "exposure_recorded": True}
    for kind in ("JPEG", "PNG", "WEBP"):
        assert said(encode(quadrants(), kind, exif=camera())) == expected, kind


def test_iptc_source_type_and_creator_tool_in_xmp() -> None:
    expected = {"digital_source_type": "trainedAlgorithmicMedia", "software": "Dream Painter 3"}
    assert said(encode(quadrants(), "JPEG", xmp=XMP)) == expected
    assert said(encode(quadrants(), "WEBP", xmp=XMP)) == expected
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    assert said(encode(quadrants(), "PNG", pnginfo=info)) == expected


def test_generator_chunks() -> None:
    for name in ("parameters", "workflow", "prompt", "Dream"):
        info = PngInfo()
        info.add_text(name, "a castle, Steps: 20")
        assert said(encode(quadrants(), "PNG", pnginfo=info)) == {"generator": name.lower()}
    info = PngInfo()
    info.add_text("Software", "Screenshot tool", zip=True)
    info.add_text("Comment", "parameters")
    assert said(encode(quadrants(), "PNG", pnginfo=info)) == {"software": "Screenshot tool"}


def test_generator_words_in_the_user_comment() -> None:
    exif = pillow.Exif()
    exif.get_ifd(34665)[37510] = b"ASCII\0\0\0a cat\nNegative prompt: dog\nSteps: 30"
    assert said(encode(quadrants(), "JPEG", exif=exif)) == {"generator": "user comment"}


def test_content_credentials() -> None:
    jpeg = encode(quadrants(), "JPEG")
    segment = b"JP\0\1\0\0\0\1\0\0\0\x40jumb\0\0\0\x20jumdc2pa" + bytes(40)
    box = b"\xff\xeb" + (len(segment) + 2).to_bytes(2, "big") + segment
    assert said(jpeg[:2] + box + jpeg[2:]) == {"c2pa": True}


def test_damaged_exif_is_no_exif() -> None:
    data = bytearray(encode(quadrants(), "JPEG", exif=camera()))
    at = data.index(b"Exif\0\0") + 6
    for cut in range(8, 60, 3):
        broken = data.copy()
        broken[at + cut : at + cut + 8] = b"\xff" * 8
        assert isinstance(said(bytes(broken)), dict)
