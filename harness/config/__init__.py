"""The matrix file: its schema, reading and checking, and the matrices that ship."""
