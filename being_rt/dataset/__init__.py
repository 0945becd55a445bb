"""Frames of one person with tracked FLAME parameters: what an avatar is trained on. docs/dataset.md has the format."""

from being_rt.dataset.crop import Crop
from being_rt.dataset.dataset import Dataset
from being_rt.dataset.writer import DatasetWriter

__all__ = ["Crop", "Dataset", "DatasetWriter"]
