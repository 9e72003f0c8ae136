"""The incident: real processes that leak, real load, real kills."""
