"""What an output scores: one file a rule, shared by the real task and its small sister."""
