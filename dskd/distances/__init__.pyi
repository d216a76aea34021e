from .measure import Measured, measure
from .models import Models, reader_of
from .rows import row_for_teacher, write_rows
from .texts import Text, encode_text

__all__ = ["Measured", "Models", "Text", "encode_text", "measure", "reader_of", "row_for_teacher", "write_rows"]
