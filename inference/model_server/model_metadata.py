"""Answers GetModelMetadata and GetModelStatus.

Reference:
    tensorflow_serving/servables/tensorflow/get_model_metadata_impl.cc, model_servers/get_model_status_impl.cc.
"""

from __future__ import annotations

from typing import Any

from inference.model_server.predict import reply_spec, servable_of
from inference.model_server.servable_manager import ServableManager
from inference.model_server.statuses import invalid_argument, not_found
from inference.serving_messages import serving_message

SIGNATURE_DEF = "signature_def"


def model_metadata(request: Any, manager: ServableManager) -> Any:
    """Give the GetModelMetadataResponse: the whole map of signatures.

    Raises:
        StatusError: as TF Serving answers.
    """
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    if not request.metadata_field:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for name in request.metadata_field:
        if name != SIGNATURE_DEF:
            raise invalid_argument(f"Metadata field {name} is not supported")
    with servable_of(request.model_spec, manager) as (servable, version):
        reply = serving_message("GetModelMetadataResponse")()
        reply.model_spec.CopyFrom(reply_spec(request.model_spec.name, version))
        reply.metadata[SIGNATURE_DEF].Pack(servable.signature_map)
        return reply


def model_status(request: Any, manager: ServableManager) -> Any:
    """Give the GetModelStatusResponse: every version seen, newest first; a label is not looked at.

    Raises:
        StatusError: as TF Serving answers.
    """
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    name = request.model_spec.name
    statuses = manager.statuses(name)
    if request.model_spec.HasField("version"):
        version = request.model_spec.version.value
        statuses = [status for status in statuses if status.version == version]
        if not statuses:
            raise not_found(f"Could not find version {version} of model {name}")
    if not statuses:
        raise not_found(f"Could not find any versions of model {name}")
    reply = serving_message("GetModelStatusResponse")()
    for status in statuses:
        found = reply.model_version_status.add(version=status.version, state=status.state)
        found.status.error_code = status.code
        found.status.error_message = status.message
    return reply
