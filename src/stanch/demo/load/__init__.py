"""The users of the incident: a paced HTTP load in a process of its own, and its meter."""
