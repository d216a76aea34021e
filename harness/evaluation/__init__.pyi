from .evaluate import EvaluationOptions, evaluate
from .summary import summarise

__all__ = ["EvaluationOptions", "evaluate", "summarise"]
