"""From records to tables: pure functions, the same records always give the same table, in every format."""
