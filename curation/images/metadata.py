"""What a file says about its own origin: camera, software, declared digital source, content credentials, generators.

Read from the header's blocks, never from pixels. It serves the realism score: a camera with an exposure speaks for a
photograph, a generator's parameters or IPTC's `trainedAlgorithmicMedia` against one.
"""

from __future__ import annotations

import json
import re
import zlib

from curation.images import exif
from curation.images.header import Header

_MAX_TEXT = 300
_MAX_INFLATED = 1 << 16
_SOURCE_TYPE = re.compile(rb"digitalsourcetype/([A-Za-z]+)", re.IGNORECASE)  # IPTC NewsCodes, in XMP
_CREATOR_TOOL = re.compile(rb"CreatorTool(?:=\"|>)([^\"<]{1,200})")
# Text chunks that image generators write: Stable Diffusion web UIs, ComfyUI, InvokeAI, NovelAI, Draw Things.
_GENERATOR_CHUNKS = {"parameters", "prompt", "workflow", "sd-metadata", "invokeai_metadata", "dream", "generation_data"}
_GENERATOR_WORDS = re.compile(
    r"Steps: \d+|Negative prompt:|stable diffusion|midjourney|dall[·-]?e|novelai", re.IGNORECASE
)


def read_metadata(header: Header) -> str:
    """A JSON object with sorted keys; `{}` when the file says nothing."""
    found: dict[str, object] = _from_exif(header.layout.exif)
    for kind, payload in header.layout.blocks:
        if kind == "c2pa":
            found["c2pa"] = True
        elif kind == "xmp":
            _from_xmp(payload, found)
        else:
            _from_text_chunk(kind, payload, found)
    return json.dumps(found, sort_keys=True, ensure_ascii=False)


def _from_exif(block: bytes) -> dict[str, object]:
    tags = exif.read_directory(block, follow_exif=True)
    names = {exif.MAKE: "make", exif.MODEL: "model", exif.SOFTWARE: "software"}
    found: dict[str, object] = {
        name: tags[tag].strip()[:_MAX_TEXT]
        for tag, name in names.items()
        if isinstance(tags.get(tag), str) and tags[tag].strip()
    }
    if any(tag in tags for tag in (exif.EXPOSURE_TIME, exif.F_NUMBER, exif.ISO, exif.FOCAL_LENGTH)):
        found["exposure_recorded"] = True
    comment = tags.get(exif.USER_COMMENT)
    if isinstance(comment, str) and _GENERATOR_WORDS.search(comment.replace("\0", "")):
        found["generator"] = "user comment"
    return found


def _from_xmp(payload: bytes, found: dict[str, object]) -> None:
    if match := _SOURCE_TYPE.search(payload):
        found["digital_source_type"] = match[1].decode()
    if match := _CREATOR_TOOL.search(payload):
        found.setdefault("software", match[1].decode("utf-8", "replace").strip())
    if b"c2pa" in payload or b"contentauth" in payload:
        found["c2pa"] = True


def _from_text_chunk(kind: str, payload: bytes, found: dict[str, object]) -> None:
    """A PNG tEXt, zTXt or iTXt chunk: keyword, a zero byte, then text in the chunk's own coding."""
    keyword, _, rest = payload.partition(b"\0")
    name = keyword.decode("latin-1").lower()
    if name == "xml:com.adobe.xmp":
        return _from_xmp(rest, found)
    if name in _GENERATOR_CHUNKS:
        found["generator"] = name
    if name == "software":
        text = _inflate(rest[1:]) if kind == "zTXt" else rest.rpartition(b"\0")[2]
        found.setdefault("software", text.decode("utf-8", "replace").strip()[:_MAX_TEXT])
    return None


def _inflate(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MAX_INFLATED)
    except zlib.error:
        return b""
