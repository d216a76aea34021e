"""Tokenizers: vocabularies as bytes, exact token alignment, prompt templates."""
