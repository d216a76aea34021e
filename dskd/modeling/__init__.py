"""Models: loading, output heads, adapters, projectors, attention between two models."""
