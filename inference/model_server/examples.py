"""Answers Classify, Regress and MultiInference: signatures that take serialised tf.Examples.

Reference:
    tensorflow_serving/servables/tensorflow/classifier.cc, regressor.cc, multi_inference.cc, util.cc.
"""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np

from inference.model_server.metrics import Metrics
from inference.model_server.predict import DEFAULT_SIGNATURE, Servables, reply_spec, servable_of
from inference.model_server.servable import Servable
from inference.model_server.session_run import Array, type_name
from inference.model_server.statuses import StatusError, failed_precondition, invalid_argument
from inference.serving_messages import serving_message

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"  # method names of signatures
INPUTS, CLASSES, SCORES, OUTPUTS = "inputs", "classes", "scores", "outputs"


def classify(request: Any, manager: Servables, metrics: Metrics, *, timeout_ms: int = 0) -> Any:
    """Give the ClassificationResponse.

    Raises:
        StatusError: as TF Serving answers.
    """
    reply = serving_message("ClassificationResponse")()
    with servable_of(_spec(request), manager) as (servable, version):
        name, signature = _signature(servable, request.model_spec, CLASSIFY, "classification")
        source, outputs = _classify_tensors(signature)
        count, arrays = _run(servable, request, source, outputs, metrics, timeout_ms)
        _fill_classifications(reply.result, signature, dict(zip(outputs, arrays, strict=True)), count)
        reply.model_spec.CopyFrom(reply_spec(request.model_spec.name, version, name))
    return reply


def regress(request: Any, manager: Servables, metrics: Metrics, *, timeout_ms: int = 0) -> Any:
    """Give the RegressionResponse.

    Raises:
        StatusError: as TF Serving answers.
    """
    reply = serving_message("RegressionResponse")()
    with servable_of(_spec(request), manager) as (servable, version):
        name, signature = _signature(servable, request.model_spec, REGRESS, "regression")
        source, output = _regress_tensors(signature)
        count, [values] = _run(servable, request, source, [output], metrics, timeout_ms)
        _fill_regressions(reply.result, values, count)
        reply.model_spec.CopyFrom(reply_spec(request.model_spec.name, version, name))
    return reply


def multi_inference(request: Any, manager: Servables, metrics: Metrics, *, timeout_ms: int = 0) -> Any:
    """Give the MultiInferenceResponse: several signatures on the same examples in one run.

    Raises:
        StatusError: as TF Serving answers.
    """
    reply = serving_message("MultiInferenceResponse")()
    if not request.tasks or not request.tasks[0].model_spec.name:
        raise invalid_argument("ModelSpec has no name specified.")
    spec = request.tasks[0].model_spec
    with servable_of(spec, manager) as (servable, version):
        source, outputs = _multi_tensors(request, servable)
        count, arrays = _run(servable, request, source, outputs, metrics, timeout_ms, model=spec.name)
        by_name = dict(zip(outputs, arrays, strict=True))
        for task in request.tasks:
            name = task.model_spec.signature_name or DEFAULT_SIGNATURE
            signature = servable.signature(name)
            result = reply.results.add()
            if task.method_name == CLASSIFY:
                _fill_classifications(result.classification_result, signature, by_name, count)
            else:
                _fill_regressions(result.regression_result, by_name[_regress_tensors(signature)[1]], count)
            result.model_spec.CopyFrom(reply_spec(task.model_spec.name, version, name))
    return reply


def example_strings(request_input: Any) -> Array:
    """Give the serialised examples of an Input, each with the common context before it.

    Raises:
        StatusError: there is none.
    """
    context = b""
    if request_input.WhichOneof("kind") == "example_list_with_context":
        context = request_input.example_list_with_context.context.SerializeToString()
        examples = request_input.example_list_with_context.examples
    else:
        examples = request_input.example_list.examples
    if not examples:
        raise invalid_argument("Input is empty.")
    strings = np.empty(len(examples), object)
    strings[:] = [context + example.SerializeToString() for example in examples]
    return strings


def _spec(request: Any) -> Any | None:
    return request.model_spec if request.HasField("model_spec") else None


def _signature(servable: Servable, model_spec: Any, method: str, kind: str) -> tuple[str, Any]:
    name = model_spec.signature_name or DEFAULT_SIGNATURE
    signature = servable.signature(name)
    if signature is None:
        raise invalid_argument(f"No signature was found with the name: {name}")
    _check_method(signature, method, kind)
    return name, signature


def _check_method(signature: Any, method: str, kind: str) -> None:
    if signature.method_name != method:
        raise invalid_argument(
            f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}",
        )


def _run(
    servable: Servable,
    request: Any,
    source: str,
    outputs: list[str],
    metrics: Metrics,
    timeout_ms: int,
    model: str | None = None,
) -> tuple[int, list[Array]]:
    examples = example_strings(request.input)
    arrays = servable.run({source: examples}, outputs, timeout_ms)
    metrics.examples(model or request.model_spec.name, len(examples))
    return len(examples), arrays


def _classify_tensors(signature: Any) -> tuple[str, list[str]]:
    """Give the names of the input tensor and of those for classes and scores."""
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if INPUTS not in signature.inputs:
        raise failed_precondition(f"No classification inputs found in SignatureDef: {signature}")
    outputs = [signature.outputs[key].name for key in (CLASSES, SCORES) if key in signature.outputs]
    if not outputs:
        raise failed_precondition(
            f'Expected classification signature outputs to contain at least one of "{CLASSES}" or "{SCORES}". '
            f"Signature was: {signature}"
        )
    return signature.inputs[INPUTS].name, outputs


def _regress_tensors(signature: Any) -> tuple[str, str]:
    """Give the names of the input and the output tensor."""
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if INPUTS not in signature.inputs:
        raise failed_precondition(f"No regression inputs found in SignatureDef: {signature}")
    if OUTPUTS not in signature.outputs:
        raise failed_precondition(f"No regression outputs found in SignatureDef: {signature}")
    return signature.inputs[INPUTS].name, signature.outputs[OUTPUTS].name


def _multi_tensors(request: Any, servable: Servable) -> tuple[str, list[str]]:
    """Check all tasks against their signatures; give the common input tensor and all output tensors."""
    sources: list[str] = []
    outputs: set[str] = set()
    seen: set[str] = set()
    for task in request.tasks:
        signature = _task_signature(task, request, servable, seen)
        if task.method_name == CLASSIFY:
            _check_method(signature, CLASSIFY, "classification")
            source, names = _classify_tensors(signature)
        elif task.method_name == REGRESS:
            _check_method(signature, REGRESS, "regression")
            source, name = _regress_tensors(signature)
            names = [name]
        else:
            message = f"Unsupported signature method_name: {task.method_name}"
            raise StatusError(grpc.StatusCode.UNIMPLEMENTED, message)
        if sources and source not in sources:
            raise invalid_argument("Input tensor must be the same for all Signatures.")
        sources.append(source)
        outputs.update(names)
    return sources[0], sorted(outputs)


def _task_signature(task: Any, request: Any, servable: Servable, seen: set[str]) -> Any:
    if not task.model_spec.name:
        raise invalid_argument("Found ModelSpec with an empty model name.")
    if task.model_spec.name != request.tasks[0].model_spec.name:
        raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
    name = task.model_spec.signature_name or DEFAULT_SIGNATURE
    if name in seen:
        raise invalid_argument(f"Duplicate evaluation of signature: {name}")
    seen.add(name)
    signature = servable.signature(name)
    if signature is None:
        raise invalid_argument(f"Requested signature not found in model graph: {name}")
    return signature


def _fill_classifications(result: Any, signature: Any, arrays: dict[str, Array], count: int) -> None:
    classes = _matrix(arrays, signature, CLASSES, "DT_STRING", count)
    scores = _matrix(arrays, signature, SCORES, "DT_FLOAT", count)
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    for row in range(count):
        found = result.classifications.add()
        for column in range((classes if classes is not None else scores).shape[1]):  # type: ignore[union-attr]
            each = found.classes.add()
            if classes is not None:
                each.label = classes[row, column]
            if scores is not None:
                each.score = scores[row, column]


def _matrix(arrays: dict[str, Array], signature: Any, key: str, dtype: str, count: int) -> Array | None:
    """Give the checked array (examples, classes) of an output, or None where the signature has none."""
    if key not in signature.outputs:
        return None
    array = arrays[signature.outputs[key].name]
    if array.ndim != 2:
        raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}")
    if f"DT_{type_name(array.dtype).upper()}" != dtype:
        found = f"DT_{type_name(array.dtype).upper()}"
        raise invalid_argument(f"Expected {key} Tensor of {dtype}. Got: {found}")
    if array.shape[0] != count:
        raise invalid_argument(f"Expected {key} output batch size of {count}. Got: {array.shape[0]}")
    return array


def _fill_regressions(result: Any, values: Array, count: int) -> None:
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(values)}"
        )
    if values.shape[0] != count:
        raise invalid_argument(f"Input batch size did not match output batch size: {count} vs. {values.shape[0]}")
    if values.dtype != np.float32:
        found = f"DT_{type_name(values.dtype).upper()}"
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {found}")
    for value in values.reshape(-1).tolist():
        result.regressions.add(value=value)


def _shape(array: Array) -> str:
    return "[" + ",".join(str(size) for size in array.shape) + "]"
