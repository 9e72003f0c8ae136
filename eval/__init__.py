"""The benchmark on real programs, and what detection's numbers were fitted with."""
