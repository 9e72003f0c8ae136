"""Settings of notify, read from the environment once."""

import os

# The demo runs each service twice: as the incident found it, and repaired.
FIXED = os.environ.get("STANCH_DEMO_FIXED") == "1"

# How long a receipt is waited for. Providers promise an hour; the demo's clock runs faster.
# As the incident found it, nobody had thought of receipts that never come.
RECEIPT_TIMEOUT_SECONDS = 8.0 if FIXED else None

# The mail relay's answer takes this long.
RELAY_SECONDS = 0.01
