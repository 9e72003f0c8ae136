"""Sends messages and waits for their delivery receipts."""
