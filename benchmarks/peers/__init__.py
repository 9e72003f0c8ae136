"""Stanch beside the other memory profilers for Python: cost, accuracy, and what each can see."""
