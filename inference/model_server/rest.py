"""The REST door: TF Serving's /v1/models over HTTP, and the metrics for Prometheus.

Reference:
    tensorflow_serving/model_servers/http_rest_api_handler.cc, http_rest_api_util.cc, http_server.cc.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import grpc
import structlog
from google.protobuf import json_format

from inference.model_server.json_examples import fill_examples
from inference.model_server.json_inputs import predict_inputs
from inference.model_server.json_outputs import classifications_json, columns_json, regressions_json, rows_json
from inference.model_server.json_text import parsed_object, written
from inference.model_server.predict import DEFAULT_SIGNATURE, servable_of
from inference.model_server.predict_request import PredictRequest
from inference.model_server.serving_api import REST, ServingApi
from inference.model_server.statuses import StatusError, invalid_argument
from inference.serving_messages import descriptors, serving_message

log = structlog.get_logger()

RUN_TIMEOUT_MS = 30_000  # --rest_api_timeout_in_ms
IDLE_TIMEOUT_S = 120.0  # a connection on which nothing is said for this long is closed
METRICS_PATH = "/monitoring/prometheus/metrics"

_POST_PATH = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(classify|regress|predict)", re.IGNORECASE
)
_GET_PATH = re.compile(r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(?:/(metadata))?", re.IGNORECASE)

HTTP_STATUSES = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}  # all others: 500


@dataclass(frozen=True)
class RestOptions:
    """What the REST door shows, and what it takes.

    Attributes:
        metrics_path: of the metrics; None: they are not shown.
        largest_message_bytes: of one request's body.
    """

    metrics_path: str | None = METRICS_PATH
    largest_message_bytes: int = 2**31 - 1


class RestServer:
    """Listens for HTTP and answers with a `ServingApi`, a thread for each connection."""

    def __init__(self, api: ServingApi, host: str, port: int, options: RestOptions) -> None:
        class Handler(_Handler):
            pass

        Handler.api = api
        Handler.options = options
        self._server = _Server((host, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="rest", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # an idle connection shall not hold up the end
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        log.info("connection_lost", host="rest")


class _Handler(BaseHTTPRequestHandler):
    api: ServingApi
    options: RestOptions
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > self.options.largest_message_bytes:
            self.close_connection = True  # the body is left unread
            self._send(413, "", "text/plain")
            return
        self._answer(self.rfile.read(int(length)))

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_POST  # noqa: N815

    def _answer(self, body: bytes) -> None:
        path = urlsplit(self.path).path
        if path == self.options.metrics_path:
            self._send(200, self.api.metrics.page(), "text/plain")
        elif not path.lower().startswith("/v1/"):
            self._send(404, "", "text/plain")
        else:
            self._send(*answer(self.api, self.command, path, body), "application/json")

    def _send(self, status: int, text: str, content_type: str) -> None:
        content = text.encode("utf-8", "surrogateescape")
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Write nothing: requests are counted in the metrics."""


def answer(api: ServingApi, method: str, path: str, body: bytes) -> tuple[int, str]:
    """Answer a request below /v1/.

    Args:
        api: answers the calls.
        method: of HTTP.
        path: without query.
        body: of the request.

    Returns:
        HTTP status and JSON text.
    """
    try:
        return 200, _answered(api, method, path, body)
    except StatusError as error:
        return HTTP_STATUSES.get(error.code, 500), _error_json(error.message)
    except Exception as error:  # noqa: BLE001  one request must not end the connection without an answer
        log.error("request_failed", error_type=type(error).__name__)
        return 500, _error_json(f"The server failed ({type(error).__name__})")


def _answered(api: ServingApi, method: str, path: str, body: bytes) -> str:
    post = _POST_PATH.fullmatch(path) if method == "POST" else None
    get = _GET_PATH.fullmatch(path) if method == "GET" else None
    found = post or get
    if found is None:
        raise invalid_argument(f"Malformed request: {method} {path}")
    name, version, label, action = found.groups()
    if not name:
        raise invalid_argument("Missing model name in request.")
    spec = _model_spec(name, version, label)
    if post:
        return _POST_ACTIONS[action.lower()](api, spec, body)
    return _metadata(api, spec) if action else _status(api, spec)


def _model_spec(name: str, version: str | None, label: str | None) -> Any:
    spec = serving_message("ModelSpec")(name=unquote(name))
    if version is not None:
        if int(version) >= 2**63:
            raise invalid_argument(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(version)
    if label is not None:
        spec.version_label = unquote(label)
    return spec


def _predict(api: ServingApi, spec: Any, body: bytes) -> str:
    document = _document(body, spec)
    with servable_of(spec, api.manager) as (servable, version):
        name = spec.signature_name or DEFAULT_SIGNATURE
        signature = servable.signature(name)
        if signature is None:
            raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
        inputs, by_rows = predict_inputs(document, signature.inputs, spec.signature_name)
        if not spec.HasField("version_label"):
            spec.version.value = version  # the version whose signature was read, also if a newer one comes meanwhile
        reply = api.predict(PredictRequest(spec, inputs, ()), RUN_TIMEOUT_MS, REST)
    return rows_json(reply.outputs) if by_rows else columns_json(reply.outputs)


def _classify(api: ServingApi, spec: Any, body: bytes) -> str:
    request = serving_message("ClassificationRequest")()
    fill_examples(_document(body, spec), request)
    request.model_spec.CopyFrom(spec)
    return classifications_json(api.classify(request, RUN_TIMEOUT_MS, REST).result)


def _regress(api: ServingApi, spec: Any, body: bytes) -> str:
    request = serving_message("RegressionRequest")()
    fill_examples(_document(body, spec), request)
    request.model_spec.CopyFrom(spec)
    return regressions_json(api.regress(request, RUN_TIMEOUT_MS, REST).result)


_POST_ACTIONS = {"predict": _predict, "classify": _classify, "regress": _regress}


def _document(body: bytes, spec: Any) -> dict[str, Any]:
    """Parse the body, and put its signature into the spec."""
    document = parsed_object(body)
    signature_name = document.get("signature_name", "")
    if not isinstance(signature_name, str):
        raise invalid_argument(
            f"JSON Value: {written(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    spec.signature_name = signature_name
    return document


def _status(api: ServingApi, spec: Any) -> str:
    return _message_json(api.model_status(serving_message("GetModelStatusRequest")(model_spec=spec)))


def _metadata(api: ServingApi, spec: Any) -> str:
    request = serving_message("GetModelMetadataRequest")(model_spec=spec, metadata_field=["signature_def"])
    reply = api.model_metadata(request)
    signatures = serving_message("SignatureDefMap")()
    reply.metadata["signature_def"].Unpack(signatures)
    return (
        f'{{\n"model_spec":{_message_json(reply.model_spec)}\n,\n'
        f'"metadata": {{"signature_def": {_message_json(signatures)}\n}}\n}}\n'
    )


def _message_json(message: Any) -> str:
    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=1,
        descriptor_pool=descriptors(),
    )


def _error_json(message: str) -> str:
    return '{ "error": ' + json.dumps(message) + " }"
