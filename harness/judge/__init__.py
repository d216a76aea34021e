"""A judge model compares two sets of answers to the same prompts, over any OpenAI-compatible endpoint (docs/judge.md)."""
