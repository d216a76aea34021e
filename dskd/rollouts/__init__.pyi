from .rollouts import RolloutOptions, RolloutReport, Rollouts

__all__ = ["RolloutOptions", "RolloutReport", "Rollouts"]
