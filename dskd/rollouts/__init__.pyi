from .options import RolloutOptions, RolloutReport
from .rollouts import Rollouts

__all__ = ["RolloutOptions", "RolloutReport", "Rollouts"]
