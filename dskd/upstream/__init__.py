"""What published code does otherwise, for comparisons."""
