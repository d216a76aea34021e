from .distiller import Distiller
from .launch import launch_training
from .options import TrainingOptions, TrainingReport
from .run import train
from .trackers import log_scores
from .trainer import DistillationTrainer

__all__ = [
    "DistillationTrainer",
    "Distiller",
    "TrainingOptions",
    "TrainingReport",
    "launch_training",
    "log_scores",
    "train",
]
