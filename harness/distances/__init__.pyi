from .summary import nothing, of_lengths, summarise
from .texts import Texts, lengths, own_answers, reference_answers

__all__ = ["Texts", "lengths", "nothing", "of_lengths", "own_answers", "reference_answers", "summarise"]
