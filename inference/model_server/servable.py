"""One version of a model in memory: a SavedModel loaded as TF Serving loads it, and its session.

The graph is imported, restored and initialised by the steps of tensorflow/cc/saved_model/loader.cc, through
TensorFlow's public v1 interface.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from inference.model_server.batch_scheduler import BatchScheduler
from inference.model_server.batched_run import BatchedRun
from inference.model_server.metrics import Metrics
from inference.model_server.session_run import Array, RankedRun, Run, session_run
from inference.model_server.statuses import CODES, StatusError, invalid_argument, not_found
from inference.serving_messages import serving_message

INIT_OP_SIGNATURE = "__saved_model_init_op"
INIT_OP_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
ASSETS_COLLECTION = "saved_model_assets"
SERVING_TAG = "serve"


@dataclass(frozen=True)
class SessionThreads:
    """Threads of TensorFlow's sessions; 0 leaves the choice to TensorFlow."""

    intra_op: int = 0
    inter_op: int = 0


class Servable:
    """A loaded SavedModel.

    Args:
        session: session on the restored and initialised graph.
        meta_graph: its MetaGraphDef (TensorFlow's own class).
        run: how the session is run.
    """

    def __init__(self, session: tf.compat.v1.Session, meta_graph: Any, run: Run) -> None:
        self._session = session
        self._run = run
        self._close_batching: Callable[[], None] = lambda: None
        self.signature_map = serving_message("SignatureDefMap")()
        for name, signature in meta_graph.signature_def.items():
            self.signature_map.signature_def[name].ParseFromString(signature.SerializeToString())

    def signature(self, name: str) -> Any | None:
        """Give a SignatureDef by its key, or None."""
        return self.signature_map.signature_def.get(name)

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_ms: int = 0) -> list[Array]:
        """Feed arrays by tensor name and give the fetched ones; `timeout_ms` 0 waits without limit.

        Raises:
            StatusError: TensorFlow's own code and text.
        """
        try:
            return self._run(feeds, fetches, timeout_ms)
        except tf.errors.OpError as error:
            raise StatusError(CODES[error.error_code], error.message) from error

    def batched(self, scheduler: BatchScheduler, metrics: Metrics) -> None:
        """Run requests together from now on."""
        signatures = [
            ({each.name for each in signature.inputs.values()}, {each.name for each in signature.outputs.values()})
            for signature in self.signature_map.signature_def.values()
        ]
        batched = BatchedRun(self._run, scheduler, signatures, metrics)
        self._run, self._close_batching = batched, batched.close

    def close(self) -> None:
        """Free the session and its variables; no request may be under way."""
        self._close_batching()
        self._session.close()


def load_servable(path: Path, threads: SessionThreads) -> Servable:
    """Load the SavedModel of one version folder.

    Raises:
        StatusError: it cannot be read, restored or initialised.
    """
    meta_graph = read_meta_graph(path)
    # newer GPUs would else round what they multiply to 10 bits: probabilities up to 0.002 off a CPU's
    tf.config.experimental.enable_tensor_float_32_execution(False)
    config = tf.compat.v1.ConfigProto(
        allow_soft_placement=True,
        intra_op_parallelism_threads=threads.intra_op,
        inter_op_parallelism_threads=threads.inter_op,
        gpu_options=tf.compat.v1.GPUOptions(allow_growth=True),
    )
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.import_graph_def(meta_graph.graph_def, name="")
        session = tf.compat.v1.Session(graph=graph, config=config)
        assets = _asset_feeds(meta_graph, path)
        _restore(session, meta_graph, path, assets)
        _initialise(session, meta_graph, assets)
    except tf.errors.OpError as error:
        raise StatusError(CODES[error.error_code], error.message) from error
    except Exception as error:
        raise invalid_argument(f"{type(error).__name__}: {error}") from error
    return Servable(session, meta_graph, RankedRun(session_run(session), meta_graph))


def read_meta_graph(path: Path) -> Any:
    """Read the MetaGraphDef tagged `serve` of a SavedModel folder.

    Raises:
        StatusError: no SavedModel is there, it cannot be parsed, or it has no graph with this tag.
    """
    file = path / "saved_model.pb"
    if not file.is_file():
        raise not_found(
            f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}. Check that the "
            "directory exists and that you have the right permissions for accessing it."
        )
    try:
        saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except (OSError, DecodeError) as error:
        # tensorflow/core/platform/env.cc (ReadBinaryProto)
        raise StatusError(grpc.StatusCode.DATA_LOSS, f"Can't parse {file} as binary proto") from error
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == {SERVING_TAG}:
            return meta_graph
    raise not_found(
        f"Could not find meta graph def matching supplied tags: {{ {SERVING_TAG} }}. To inspect available tag-sets in "
        "the SavedModel, please use the SavedModel CLI: `saved_model_cli`"
    )


def _asset_feeds(meta_graph: Any, path: Path) -> dict[str, str]:
    """Give the path of each asset file by the tensor that takes it."""
    assets = list(meta_graph.asset_file_def)
    if not assets:
        for packed in meta_graph.collection_def[ASSETS_COLLECTION].any_list.value:
            asset = tf.compat.v1.MetaGraphDef().asset_file_def.add()
            packed.Unpack(asset)
            assets.append(asset)
    return {asset.tensor_info.name: str(path / "assets" / asset.filename) for asset in assets}


def _restore(session: Any, meta_graph: Any, path: Path, assets: Mapping[str, str]) -> None:
    """Restore the variables; a SavedModel whose variables are missing counts as one that has none (RunRestore)."""
    saver = meta_graph.saver_def
    if not saver.restore_op_name or not (path / "variables" / "variables.index").is_file():
        return
    variables = str(path / "variables" / "variables")
    session.run(saver.restore_op_name, {saver.filename_tensor_name: variables, **assets})


def _initialise(session: Any, meta_graph: Any, assets: Mapping[str, str]) -> None:
    name = _init_op_name(meta_graph)
    if name:
        session.run(session.graph.get_operation_by_name(name.partition(":")[0]), dict(assets))


def _init_op_name(meta_graph: Any) -> str:
    if INIT_OP_SIGNATURE in meta_graph.signature_def:
        return str(meta_graph.signature_def[INIT_OP_SIGNATURE].outputs[INIT_OP_SIGNATURE].name)
    for collection in INIT_OP_COLLECTIONS:
        names = meta_graph.collection_def[collection].node_list.value if collection in meta_graph.collection_def else ()
        if names:
            return str(names[0])
    return ""
