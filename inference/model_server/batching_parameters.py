"""How requests are batched: TF Serving's `--batching_parameters_file`, with its meaning and defaults.

Reference:
    tensorflow_serving/servables/tensorflow/session_bundle_config.proto (BatchingParameters), bundle_factory_util.h;
    tensorflow/core/kernels/batching_util/shared_batch_scheduler.h.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.model_server.model_config import read_text_message
from triage.errors import ConfigError


@dataclass(frozen=True)
class BatchingParameters:
    """Limits of batches; sizes are rows (slabs)."""

    max_batch_size: int = 1000  # of one request, and of one batch where large requests are not split
    batch_timeout_s: float = 0.0  # longest wait of a batch that is not full, once a thread is free
    max_enqueued_batches: int = 10  # waiting for a thread, for each signature
    num_batch_threads: int = 1  # batches run at once
    allowed_batch_sizes: tuple[int, ...] = ()  # a batch is filled up to the next of them; none: any size
    pad_variable_length_inputs: bool = False  # fill up inner axes too
    enable_large_batch_splitting: bool = False  # cut requests into batches of max_execution_batch_size
    max_execution_batch_size: int = 1000

    def padded_size(self, size: int) -> int:
        """Give the allowed size that a batch of `size` rows is filled up to."""
        return next((allowed for allowed in self.allowed_batch_sizes if allowed >= size), size)


def read_batching_parameters(file: Path) -> BatchingParameters:
    """Read the file of parameters.

    Raises:
        ConfigError: it is no BatchingParameters in text form, or its values do not fit together.
    """
    message = read_text_message(file, "BatchingParameters")
    max_batch_size = _value(message, "max_batch_size", 1000)
    splitting = bool(_value(message, "enable_large_batch_splitting", 0))
    parameters = BatchingParameters(
        max_batch_size=max_batch_size,
        batch_timeout_s=_value(message, "batch_timeout_micros", 0) / 1e6,
        max_enqueued_batches=_value(message, "max_enqueued_batches", 10),
        num_batch_threads=_value(message, "num_batch_threads", os.cpu_count() or 1),
        allowed_batch_sizes=tuple(message.allowed_batch_sizes),
        pad_variable_length_inputs=message.pad_variable_length_inputs,
        enable_large_batch_splitting=splitting,
        max_execution_batch_size=_value(message, "max_execution_batch_size", max_batch_size)
        if splitting
        else max_batch_size,
    )
    _check(parameters, file)
    return parameters


def _value(message: Any, name: str, default: int) -> int:
    return int(getattr(message, name).value) if message.HasField(name) else default


def _check(parameters: BatchingParameters, file: Path) -> None:
    sizes = parameters.allowed_batch_sizes
    if any(before >= after for before, after in itertools.pairwise(sizes)):
        raise ConfigError(f"{file}: allowed_batch_sizes entries must be monotonically increasing")
    if sizes and sizes[-1] != parameters.max_execution_batch_size:
        largest = "max_execution_batch_size" if parameters.enable_large_batch_splitting else "max_batch_size"
        raise ConfigError(f"{file}: final entry in allowed_batch_sizes must equal {largest}")
    if parameters.num_batch_threads < 1:
        raise ConfigError(f"{file}: num_batch_threads must be positive; was {parameters.num_batch_threads}")
    if min(parameters.max_batch_size, parameters.max_execution_batch_size, parameters.max_enqueued_batches) < 1:
        raise ConfigError(f"{file}: max_batch_size and max_enqueued_batches must be positive")
    if parameters.max_execution_batch_size > parameters.max_batch_size:
        raise ConfigError(f"{file}: max_execution_batch_size must not exceed max_batch_size")
