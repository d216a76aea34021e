from .edit_distance import nearest
from .pieces import LongestMatch, Pieces, TokenizerPieces
from .vocabulary_projection import VocabularyProjection, project_vocabulary

__all__ = ["LongestMatch", "Pieces", "TokenizerPieces", "VocabularyProjection", "nearest", "project_vocabulary"]
