"""A trained network as a version of TF Serving's model repository: `serving_default`, `spec` and warm-up records.

No kernel is compiled by XLA, since the stock container has that switched off, and normalisation is folded into the
convolutions. A version is written beside and renamed: a server that looks in between sees nothing.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import keras
import tensorflow as tf

from training.serving_network import serving_function
from triage.errors import ConfigError
from triage.finding import ModelSpec

WARM_UP_SLABS = (1, 8, 32)  # batch sizes to be warm for: a single slab, a request of the worker, a whole head
WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"


def export_model(served: keras.Model, spec: ModelSpec, repository: Path, version: int) -> Path:
    """Write one version; the folder it lies in.

    Args:
        served: network with folded normalisation, built for the spec's grid.
        spec: what the model will say of itself.
        repository: folder of this model's versions.
        version: number of the new version; must be new.

    Raises:
        ConfigError: the version exists: servers never look at a version's folder twice.
    """
    target = repository / str(version)
    if target.exists():
        raise ConfigError(f"{target} exists; a served version is never changed. Choose a higher number.")
    beside = repository / f".tmp-{version}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.parent.mkdir(parents=True, exist_ok=True)
    _save(served, spec, beside)
    write_warm_up(beside / WARM_UP_FILE, spec)
    (beside / "fingerprint.pb").unlink(missing_ok=True)  # optional, and differs from run to run
    beside.rename(target)
    return target


def next_version(repository: Path) -> int:
    """Give the number after the highest version there is."""
    taken = [int(path.name) for path in repository.glob("*") if path.name.isdecimal()]
    return max(taken, default=0) + 1


def write_warm_up(path: Path, spec: ModelSpec) -> None:
    """Write warm-up requests: a broken version fails to load instead of taking over and failing every request."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(prediction_log(spec.name, "spec", {"rows": (1,)}))
        for slabs in WARM_UP_SLABS:
            shape = (slabs, spec.rows, spec.columns, 2 * spec.context + 1)
            writer.write(prediction_log(spec.name, "serving_default", {spec.input_name: shape}))


def prediction_log(model: str, signature: str, inputs: dict[str, tuple[int, ...]]) -> bytes:
    """Give a `tensorflow.serving.PredictionLog` with one PredictRequest of int16 zeros, in wire format.

    The messages are a handful of fields, so they are written here rather than with the package of their stubs, which
    training would need for nothing else: PredictionLog.predict_log = 6, PredictLog.request = 1,
    PredictRequest.model_spec = 1 and .inputs = 2, ModelSpec.name = 1 and .signature_name = 3.
    """
    model_spec = _field(1, model.encode()) + _field(3, signature.encode())
    request = _field(1, model_spec)
    for name, shape in inputs.items():
        tensor = tf.make_tensor_proto(0, tf.int16, shape).SerializeToString()  # one zero stands for all
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))


def _save(served: keras.Model, spec: ModelSpec, folder: Path) -> None:
    module = tf.Module()
    # TensorFlow's variables, not Keras's around them: those are restored into copies that a v1 session, and so TF
    # Serving, never reads
    module.served_variables = [weight.value for weight in served.weights]
    predict = serving_function(served)
    description = spec.model_dump_json()

    def describe(rows: tf.Tensor) -> dict[str, tf.Tensor]:
        # once a row: with --enable_batching a TF Serving refuses every signature that has no batch
        return {"json": tf.fill(tf.shape(rows), description)}

    rows = tf.TensorSpec([None], tf.int16, name="rows")
    signatures = {
        "serving_default": predict.get_concrete_function(),
        "spec": tf.function(describe, input_signature=[rows]).get_concrete_function(),
    }
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder), signatures=signatures, options=options)


def _field(number: int, value: bytes) -> bytes:
    """Give one length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return struct.pack(f"{len(parts) + 1}B", *parts, value)
