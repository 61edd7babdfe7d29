"""The committed messages are those of the pinned packages, and need no TensorFlow."""

from __future__ import annotations

import subprocess
import sys

from inference import extract_messages
from inference.serving_messages import DESCRIPTORS_PATH, enum_names, serving_message


def test_committed_messages_are_those_of_the_pinned_packages():
    assert DESCRIPTORS_PATH.read_bytes() == extract_messages.descriptor_set()


def test_a_message_of_ours_is_read_by_tensorflow_serving_s_class():
    from tensorflow_serving.apis import predict_pb2

    ours = serving_message("PredictRequest")()
    ours.model_spec.name = "ich_unet"
    ours.model_spec.version.value = 3

    theirs = predict_pb2.PredictRequest.FromString(ours.SerializeToString())

    assert (theirs.model_spec.name, theirs.model_spec.version.value) == ("ich_unet", 3)


def test_enums_are_named():
    assert enum_names("tensorflow.DataType")[5] == "DT_INT16"


def test_the_client_needs_no_tensorflow():
    code = "import inference.serving_client, sys; sys.exit('tensorflow' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
