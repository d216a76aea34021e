"""How methods are tuned: trials that are known beforehand, halving, and the rule by which a setting is chosen (docs/tuning.md)."""
