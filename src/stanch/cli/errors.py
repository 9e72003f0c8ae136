"""How a command says that it cannot go on."""


class CliError(Exception):
    """One sentence for the user, and the exit code that goes with it."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
