"""What pages raise."""


class NotFoundError(Exception):
    """What a page is of is not known; the text says so and what to do."""
