from .evaluate import EvaluationOptions, evaluate, open_engine
from .summary import summarise

__all__ = ["EvaluationOptions", "evaluate", "open_engine", "summarise"]
