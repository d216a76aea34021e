from .measure import Measured, measure
from .texts import Text, encode_text

__all__ = ["Measured", "Text", "encode_text", "measure"]
