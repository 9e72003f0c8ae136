"""The errors of the store that lasts."""


class StoreError(Exception):
    """The store cannot do what was asked; one sentence with the remedy."""


class StoreFullError(StoreError):
    """There is no room to keep what was sent; the sender is to keep it and try again later."""
