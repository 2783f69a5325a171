"""Labelled data: one layout on disk, read into the typed samples that synthetic people share."""

from sapiens2.data.labelled.dataset import LabelledDataset, data_digest
from sapiens2.data.labelled.layout import DatasetFacts, LabelError, Row
from sapiens2.data.labelled.write import DatasetWriter

__all__ = ["DatasetFacts", "DatasetWriter", "LabelError", "LabelledDataset", "Row", "data_digest"]
