from .cross_model_attention import CrossModelAttention, Discriminator, Layout, reverse_gradient
from .lm_head import Head
from .projectors import AffineProjectors, CrossModelProjectors, DualSpaceProjectors

__all__ = [
    "AffineProjectors",
    "CrossModelAttention",
    "CrossModelProjectors",
    "Discriminator",
    "DualSpaceProjectors",
    "Head",
    "Layout",
    "reverse_gradient",
]
