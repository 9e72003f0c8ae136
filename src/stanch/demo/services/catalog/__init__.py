"""A healthy neighbour: a bounded cache that fills, and an index that loads slowly."""
