from .edit_distance import nearest
from .pieces import LongestMatch, Pieces, TokenizerPieces
from .prefix_map import PrefixMap, map_prefixes
from .vocabulary_projection import VocabularyProjection, project_vocabulary

__all__ = [
    "LongestMatch",
    "Pieces",
    "PrefixMap",
    "TokenizerPieces",
    "VocabularyProjection",
    "map_prefixes",
    "nearest",
    "project_vocabulary",
]
