"""The messages of a TF Serving endpoint, without TensorFlow.

`serving.binpb` holds the descriptors of the pinned tensorflow-serving-api (`inference.extract_messages` writes it).
They are loaded into a pool of their own, so that they never clash with TensorFlow's when both are in one process;
between the two worlds go bytes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTORS_PATH = Path(__file__).with_name("serving.binpb")

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"


@cache
def message_class(name: str) -> Any:
    """Give the class of a message by its full name, e.g. `tensorflow.serving.PredictRequest`.

    Raises:
        KeyError: no message of this name is in `serving.binpb`.
    """
    return message_factory.GetMessageClass(descriptors().FindMessageTypeByName(name))


def serving_message(name: str) -> Any:
    """Give the class of a message of the package `tensorflow.serving`."""
    return message_class(f"tensorflow.serving.{name}")


def enum_names(name: str) -> dict[int, str]:
    """Give number and name of each value of an enum, e.g. of `tensorflow.DataType`."""
    return {value.number: value.name for value in descriptors().FindEnumTypeByName(name).values}


@cache
def descriptors() -> descriptor_pool.DescriptorPool:
    """Give the pool of all messages."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS_PATH.read_bytes()).file:
        pool.Add(file)  # dependencies come first in the file
    return pool
