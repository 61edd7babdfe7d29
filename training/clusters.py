"""The strategy that spreads a run over devices and hosts, and how its hosts find each other.

Nothing of this is our own: TensorFlow brings the strategies and the resolvers of TF_CONFIG, Slurm and Kubernetes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.distribute.multi_worker_util import coordination_leader
from tensorflow.python.eager import context

from training.settings import ClusterSettings
from triage.errors import ConfigError

resolvers = tf.distribute.cluster_resolver

MANY = 4096  # more than any host has tasks


def strategy_of(name: str, cluster: ClusterSettings | None = None) -> tf.distribute.Strategy:
    """Give the strategy of that name; several hosts are found as `cluster` says.

    Raises:
        ConfigError: the hosts cannot be found, or this one cannot join. Where another never comes, the process is
            ended with an error that names it.
    """
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        cluster = cluster or ClusterSettings()
        resolver = resolver_of(cluster)
        _notice_absence(resolver, cluster)
        try:
            with _ended_by_absence(addresses_of(resolver), cluster.wait_s):
                return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
        except tf.errors.OpError as error:
            own = f"{resolver.task_type} {resolver.task_id} of {', '.join(addresses_of(resolver))}"
            raise ConfigError(f"This process, {own}, cannot join: {str(error).splitlines()[0]}") from error
    return tf.distribute.get_strategy()


def resolver_of(cluster: ClusterSettings, kubernetes: Any = None) -> tf.distribute.cluster_resolver.ClusterResolver:
    """Give TensorFlow's resolver.

    Args:
        cluster: how the hosts find each other.
        kubernetes: a client of its API, for `kubernetes`; by default that of the cluster this pod runs in.

    Raises:
        ConfigError: what should name the hosts does not.
    """
    try:
        if cluster.found_by == "slurm":
            return _slurm_resolver(cluster)
        if cluster.found_by == "kubernetes":
            return _kubernetes_resolver(cluster, kubernetes)
        resolver = resolvers.TFConfigClusterResolver()
        addresses_of(resolver)
    except (ImportError, RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(f"The workers of this run cannot be found by {cluster.found_by}: {error}") from error
    return resolver


def addresses_of(resolver: tf.distribute.cluster_resolver.ClusterResolver) -> tuple[str, ...]:
    """List host:port of all workers, in their order; none where there is no cluster."""
    jobs = resolver.cluster_spec().as_dict()
    return tuple(address for job in ("chief", "worker") for address in jobs.get(job, ()))


def is_first_worker(strategy: tf.distribute.Strategy) -> bool:
    """Say whether this process keeps the run's records: the chief, the first worker, or the only process."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    return bool(resolver.task_type == "chief" or (resolver.task_type == "worker" and resolver.task_id == 0))


def _slurm_resolver(cluster: ClusterSettings) -> tf.distribute.cluster_resolver.ClusterResolver:
    """Give Slurm's resolver; on hosts without GPUs it has none to share out, and would divide by none."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    shared_out = {"gpus_per_node": gpus} if gpus else {"gpus_per_node": MANY, "gpus_per_task": 1, "auto_set_gpu": False}
    resolver = resolvers.SlurmClusterResolver(port_base=cluster.port, **shared_out)
    resolver.cluster_spec()  # sets this task's place
    return resolver


def _kubernetes_resolver(cluster: ClusterSettings, client: Any) -> tf.distribute.cluster_resolver.ClusterResolver:
    """Give the resolver of pods; a pod's place is that of its name among the others'."""
    client = client or _pod_s_client()
    resolver = resolvers.KubernetesClusterResolver({"worker": [cluster.pods]}, cluster.port, override_client=client)
    names = sorted(pod.metadata.name for pod in client.list_pod_for_all_namespaces(label_selector=cluster.pods).items)
    if socket.gethostname() not in names:
        raise ValueError(f"this host, {socket.gethostname()}, is none of the pods {', '.join(names) or '(none)'}")
    resolver.task_type, resolver.task_id = "worker", names.index(socket.gethostname())
    return resolver


def _pod_s_client() -> Any:
    from kubernetes import client, config  # type: ignore[import-not-found]

    config.load_incluster_config()
    return client.CoreV1Api()


def _notice_absence(resolver: tf.distribute.cluster_resolver.ClusterResolver, cluster: ClusterSettings) -> None:
    """Let TensorFlow's coordination service notice a lost worker soon; by itself it takes a minute.

    There is no public name for this; the strategy itself calls it so, and leaves alone what is configured already.
    """
    jobs = [
        coordination_config_pb2.CoordinatedJob(name=job, num_tasks=len(addresses))
        for job, addresses in resolver.cluster_spec().as_dict().items()
        if job in {"chief", "worker"}
    ]
    if context.context().coordination_service is None and jobs:
        context.context().configure_coordination_service(
            service_type="standalone",
            service_leader=coordination_leader(resolver.cluster_spec()),
            heartbeat_timeout_in_ms=int(cluster.lost_after_s * 1000),
            coordinated_jobs=jobs,
        )


@contextmanager
def _ended_by_absence(addresses: Sequence[str], wait_s: float) -> Iterator[None]:
    """Let this process be ended where the block takes longer."""
    command = [sys.executable, "-m", "training.absence", str(os.getpid()), str(wait_s), *addresses]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1]) as watch:
        try:
            yield
        finally:
            watch.terminate()
