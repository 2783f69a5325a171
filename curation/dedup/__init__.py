"""Finding copies and near-copies of pictures, and choosing which of them stay."""

from curation.dedup.features import feature_pairs, nearest_pairs
from curation.dedup.hamming import hamming_pairs
from curation.dedup.representatives import groups, representatives

__all__ = ["feature_pairs", "groups", "hamming_pairs", "nearest_pairs", "representatives"]
