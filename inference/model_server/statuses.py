"""Statuses as TF Serving gives them: a canonical code and a text."""

from __future__ import annotations

import grpc

OK = 0
CODES = {code.value[0]: code for code in grpc.StatusCode}  # by number, as TensorFlow and gRPC share them
LONGEST_DETAILS = 1024  # tensorflow_serving/model_servers/grpc_status_util.cc
TRUNCATED = "...TRUNCATED"


class StatusError(Exception):
    """A request, or the loading of a version, ends with this status.

    Args:
        code: canonical code.
        message: text, word for word TF Serving's.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code.name}: {message}")

    @property
    def details(self) -> str:
        """The text as it goes over gRPC, cut as TF Serving cuts it."""
        if len(self.message) <= LONGEST_DETAILS:
            return self.message
        return self.message[:LONGEST_DETAILS] + TRUNCATED


def invalid_argument(message: str) -> StatusError:
    """Give INVALID_ARGUMENT with this text."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def failed_precondition(message: str) -> StatusError:
    """Give FAILED_PRECONDITION with this text."""
    return StatusError(grpc.StatusCode.FAILED_PRECONDITION, message)


def not_found(message: str) -> StatusError:
    """Give NOT_FOUND with this text."""
    return StatusError(grpc.StatusCode.NOT_FOUND, message)
