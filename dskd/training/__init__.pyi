from .launch import launch_training
from .run import TrainingOptions, TrainingReport, train
from .trainer import DistillationTrainer, Distiller

__all__ = ["DistillationTrainer", "Distiller", "TrainingOptions", "TrainingReport", "launch_training", "train"]
