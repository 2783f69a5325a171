"""Bytes to pixels: the header gate, the one canonical decode, the perceptual hash, and where pictures come from."""

from curation.images.decode import Image, decode
from curation.images.header import Header, read_header
from curation.images.reasons import Reason, Reject

__all__ = ["Header", "Image", "Reason", "Reject", "decode", "read_header"]
