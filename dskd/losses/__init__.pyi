from .by_rank import sorted_l1, sorted_l1_of_logits, sorted_l1_of_top_k
from .chunked import chunk_size, chunked_counts, chunked_loss, chunks
from .cross_entropy import cross_entropy_and_hits, cross_entropy_sum
from .divergences import DIVERGENCES, forward_kl, reverse_kl
from .group_means import mean_log_probabilities, mean_log_probabilities_of_largest, mean_probabilities
from .projected import SparseMap, generalised_kl, projected_divergence
from .rest_bucket import with_rest_bucket, with_rest_bucket_of_top_k
from .sorting import argmax_of_rows, sort, sorted_values
from .token_groups import (
    ByteGroups,
    at_temperature,
    distances_over_groups,
    groups_of,
    last_tokens,
    matched_groups,
    own_log_probabilities,
)

__all__ = [
    "DIVERGENCES",
    "ByteGroups",
    "SparseMap",
    "argmax_of_rows",
    "at_temperature",
    "chunk_size",
    "chunked_counts",
    "chunked_loss",
    "chunks",
    "cross_entropy_and_hits",
    "cross_entropy_sum",
    "distances_over_groups",
    "forward_kl",
    "generalised_kl",
    "groups_of",
    "last_tokens",
    "matched_groups",
    "mean_log_probabilities",
    "mean_log_probabilities_of_largest",
    "mean_probabilities",
    "own_log_probabilities",
    "projected_divergence",
    "reverse_kl",
    "sort",
    "sorted_l1",
    "sorted_l1_of_logits",
    "sorted_l1_of_top_k",
    "sorted_values",
    "with_rest_bucket",
    "with_rest_bucket_of_top_k",
]
