"""Choosing an even subset: hierarchical clusters, caps and floors on measured attributes, an exact size."""

from curation.balance.allocation import Allocation, allocate
from curation.balance.hierarchy import Tree, hierarchical_kmeans

__all__ = ["Allocation", "Tree", "allocate", "hierarchical_kmeans"]
