"""Settings of pricing, read from the environment once."""

import os

# The demo runs each service twice: as the incident found it, and repaired.
FIXED = os.environ.get("STANCH_DEMO_FIXED") == "1"

# The compiled tiers.c; the demo builds it beside this file.
LIBRARY = os.environ.get("PRICING_LIBRARY", "libtiers.so")
