"""Settings of the shop, read from the environment once."""

import os

# The demo runs each service twice: as the incident found it, and repaired.
FIXED = os.environ.get("STANCH_DEMO_FIXED") == "1"

# A customer may come back to the order page for this long. A quarter of an hour on the
# real site; the demo's clock runs faster.
SESSION_TTL_SECONDS = 12.0
