"""Trains models on exports: supervised, by the paper's contrastive loss, DPO, KTO, rewards."""

from __future__ import annotations

from sandbox.training.report import TrainingStopped, TrainProgress, TrainReport, Watch
from sandbox.training.settings import TrainSettings, load_settings
from sandbox.training.train import train

__all__ = [
    "TrainProgress",
    "TrainReport",
    "TrainSettings",
    "TrainingStopped",
    "Watch",
    "load_settings",
    "train",
]
