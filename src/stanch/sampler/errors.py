"""What the sampler raises."""


class SamplerError(RuntimeError):
    """The sampler cannot do what was asked; the message says why and what to do."""


class TableError(ValueError):
    """A table file cannot be read; the message says what is wrong with it."""


class SearchError(RuntimeError):
    """A retention search is not possible, or gave no answer; the message says why."""
