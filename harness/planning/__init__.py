"""Planning: from a matrix to the jobs of a run and what is done of them."""
