"""The monolith of the incident: takes orders and keeps a session for each."""
