"""The decoder in C (decode/): a pprof profile as columns of rows, and names of 128 bits.

Everything else takes it from here: to the linter of imports a module in C is the package itself.
"""

from stanch.store._decode import Decoded, digest, gather, gather_lists, order

__all__ = ["Decoded", "digest", "gather", "gather_lists", "order"]
