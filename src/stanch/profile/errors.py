"""The one error of `stanch.profile`."""


class ProfileError(ValueError):
    """A profile that cannot be read, written or combined.

    The message is one sentence: what was given, what was expected and what to do.
    """
