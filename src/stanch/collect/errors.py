"""The errors of collection: what a user gave wrongly, and what a target does wrongly."""


class TargetError(ValueError):
    """A target that cannot be understood; one sentence with the text given and what is expected."""


class FetchError(Exception):
    """A target that did not give what was asked of it; one sentence, without the target's name."""


class NotServedError(FetchError):
    """The target is there but has no such path (404)."""
