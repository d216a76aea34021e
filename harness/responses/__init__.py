"""A teacher's responses to the prompts of a training set: what is asked, and the example that an answer becomes."""
