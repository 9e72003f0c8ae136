"""What goes wrong between Stanch and a cluster."""


class KubeError(Exception):
    """The API server did not do what was asked; one sentence.

    status: of its answer, None when there was none. retry_s: how long it asks to wait. reason: its
    word for it, such as "Expired".
    """

    def __init__(
        self,
        text: str,
        status: int | None = None,
        retry_s: float | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(text)
        self.status = status
        self.retry_s = retry_s
        self.reason = reason


class ClusterError(ValueError):
    """It is not known how to reach a cluster; one sentence with the remedy."""
