"""What goes wrong at the border, each with the exit status that the command line gives it."""

__all__ = ["FailureError", "InputError", "InterruptedWorkError", "RekdEdgeError", "UnsealedBundleWarning"]


class RekdEdgeError(Exception):
    """One clear sentence for the user that names the mend; never shown with a traceback."""

    exit_status = 1


class InputError(RekdEdgeError):
    """Wrong usage or bad input: the user can mend it (exit status 2)."""

    exit_status = 2


class FailureError(RekdEdgeError):
    """The work itself failed: failed parity, no space left (exit status 1)."""


class InterruptedWorkError(RekdEdgeError):
    """Work that can be continued was cut off: by Ctrl-C (exit status 130) or by SIGTERM (143)."""

    def __init__(self, sentence: str, exit_status: int = 130) -> None:
        super().__init__(sentence)
        self.exit_status = exit_status


class UnsealedBundleWarning(UserWarning):
    """A bundle has no seal, so that a change of its manifest cannot be seen."""
