from .edit_distance import nearest

__all__ = ["nearest"]
