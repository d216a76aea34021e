from .evaluate import EvaluationOptions, evaluate
from .score import summarise

__all__ = ["EvaluationOptions", "evaluate", "summarise"]
