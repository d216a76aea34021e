from .measure import Measured, measure
from .models import Models, reader_of
from .texts import Text, encode_text

__all__ = ["Measured", "Models", "Text", "encode_text", "measure", "reader_of"]
