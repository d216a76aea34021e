"""What a teacher gives: hidden states or top-k probabilities, computed live or read from a cache."""
