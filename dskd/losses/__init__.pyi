from .by_rank import sorted_l1, sorted_l1_of_logits, sorted_l1_of_top_k
from .chunked import chunk_size, chunked_counts, chunked_loss, chunks
from .cross_entropy import cross_entropy_and_hits, cross_entropy_sum
from .divergences import DIVERGENCES, forward_kl, reverse_kl
from .estimators import estimate
from .group_means import mean_log_probabilities, mean_log_probabilities_of_largest, mean_probabilities
from .importance import importance_weights
from .policy_gradient import clipped_surrogate, discounted_sums, log_likelihood_surrogate
from .prefix_targets import CUT, OWN, ROW, PrefixTable, targets_of_prefixes, where_tokens_begin
from .projected import SparseMap, generalised_kl, projected_divergence
from .responses import first_tokens, lowest, over_responses, responses_of, sums_before
from .rest_bucket import with_rest_bucket, with_rest_bucket_of_top_k
from .sorting import argmax_of_rows, sort, sorted_values
from .supports import Distribution, KnownTokens, among, restricted, union, without
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
    "CUT",
    "DIVERGENCES",
    "OWN",
    "ROW",
    "ByteGroups",
    "Distribution",
    "KnownTokens",
    "PrefixTable",
    "SparseMap",
    "among",
    "argmax_of_rows",
    "at_temperature",
    "chunk_size",
    "chunked_counts",
    "chunked_loss",
    "chunks",
    "clipped_surrogate",
    "cross_entropy_and_hits",
    "cross_entropy_sum",
    "discounted_sums",
    "distances_over_groups",
    "estimate",
    "first_tokens",
    "forward_kl",
    "generalised_kl",
    "groups_of",
    "importance_weights",
    "last_tokens",
    "log_likelihood_surrogate",
    "lowest",
    "matched_groups",
    "mean_log_probabilities",
    "mean_log_probabilities_of_largest",
    "mean_probabilities",
    "over_responses",
    "own_log_probabilities",
    "projected_divergence",
    "responses_of",
    "restricted",
    "reverse_kl",
    "sort",
    "sorted_l1",
    "sorted_l1_of_logits",
    "sorted_l1_of_top_k",
    "sorted_values",
    "sums_before",
    "targets_of_prefixes",
    "union",
    "where_tokens_begin",
    "with_rest_bucket",
    "with_rest_bucket_of_top_k",
    "without",
]
