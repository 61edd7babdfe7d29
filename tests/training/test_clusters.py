"""How the processes of a run find each other: TF_CONFIG, Slurm's variables, Kubernetes' pods."""

import json
import socket
from types import SimpleNamespace

import pytest

from training.clusters import addresses_of, resolver_of
from training.settings import ClusterSettings
from triage.errors import ConfigError


def test_workers_of_tf_config_are_found(monkeypatch):
    cluster = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))

    resolver = resolver_of(ClusterSettings())

    assert addresses_of(resolver) == ("a:1", "b:2")
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)


def test_tasks_of_slurm_are_found_by_host_and_port(monkeypatch):
    names = {"PROCID": "2", "STEP_NUM_TASKS": "3", "STEP_NODELIST": "node[1-2]", "STEP_TASKS_PER_NODE": "2,1"}
    for name, value in names.items():
        monkeypatch.setenv(f"SLURM_{name}", value)

    resolver = resolver_of(ClusterSettings(found_by="slurm", port=9000))

    assert addresses_of(resolver) == ("node1:9000", "node1:9001", "node2:9000")
    assert (resolver.task_type, resolver.task_id) == ("worker", 2)


def test_run_outside_of_slurm_is_told_so(monkeypatch):
    monkeypatch.delenv("SLURM_PROCID", raising=False)

    with pytest.raises(ConfigError, match="cannot be found by slurm"):
        resolver_of(ClusterSettings(found_by="slurm"))


class Pods:
    """Answers as the API of Kubernetes does when it is asked for pods."""

    def __init__(self, names):
        self.names = names

    def list_pod_for_all_namespaces(self, label_selector):
        assert label_selector == "app=train"
        pods = [
            SimpleNamespace(
                metadata=SimpleNamespace(name=name), status=SimpleNamespace(phase="Running", host_ip=f"10.0.0.{place}")
            )
            for place, name in enumerate(self.names)
        ]
        return SimpleNamespace(items=pods)


def test_pods_are_counted_in_the_order_of_their_names():
    pods = Pods(["zz-last", socket.gethostname(), "aa-first"])

    resolver = resolver_of(ClusterSettings(found_by="kubernetes", pods="app=train", port=9000), pods)

    assert addresses_of(resolver) == ("10.0.0.2:9000", "10.0.0.1:9000", "10.0.0.0:9000")
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)


def test_host_that_is_no_pod_is_named():
    with pytest.raises(ConfigError, match=rf"this host, {socket.gethostname()}, is none of the pods aa, zz"):
        resolver_of(ClusterSettings(found_by="kubernetes", pods="app=train"), Pods(["zz", "aa"]))


def test_tf_config_that_is_no_json_is_an_error(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{")

    with pytest.raises(ConfigError, match="cannot be found by tf_config"):
        resolver_of(ClusterSettings())
