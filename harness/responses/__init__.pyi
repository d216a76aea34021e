from .asking import respond

__all__ = ["respond"]
