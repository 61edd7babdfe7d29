"""The Compose files: closed, pinned and without secrets; and each container's own commands, run outside a container."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.serving_client import ServingClient
from local_stack import MALLOC, MODELS_FOLDER
from tests.test_docs import product_rows
from tests.test_wording import fault_in
from triage.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]
BASE = ("docker-compose.yml",)
CPU = ("docker-compose.yml", "docker-compose.cpu.yml")
ALL_PROFILES = ("train", "monitoring", "reconcile")
BUILT = ("listener", "worker", "worklist")  # the images that are ours and run for ever
SITE_CONFIG = "/etc/ich-triage/triage.toml"
TO_JSON = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))"

Service = dict[str, Any]


@cache
def composed(
    files: tuple[str, ...], profiles: tuple[str, ...] = (), site: tuple[tuple[str, str], ...] = ()
) -> dict[str, Service]:
    """Give the services as docker-compose understands the files, with nothing but `site` set in its environment."""
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed")
    options = [f"--file={name}" for name in files] + [f"--profile={name}" for name in profiles]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **dict(site)}
    done = subprocess.run(
        [program, *options, "config"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    as_json = subprocess.run(
        [yaml_reader(Path(program)), "-c", TO_JSON], input=done.stdout, capture_output=True, text=True, check=False
    )
    if as_json.returncode:
        pytest.skip("no Python here reads YAML: the package python3-yaml is missing")
    return active(json.loads(as_json.stdout)["services"], profiles)


def yaml_reader(program: Path) -> str:
    """Give a Python that has PyYAML: Debian's docker-compose is a Python program and needs it itself."""
    first = program.read_bytes()[:100].partition(b"\n")[0].decode("latin-1")
    return first[2:].split()[0] if first.startswith("#!") and "python" in first else "/usr/bin/python3"


def active(services: dict[str, Service], profiles: tuple[str, ...]) -> dict[str, Service]:
    return {
        name: service
        for name, service in services.items()
        if not service.get("profiles") or set(service["profiles"]) & set(profiles)
    }


def with_everything() -> dict[str, Service]:
    return composed(BASE, ALL_PROFILES) | {"model-server-cpu": composed(CPU)["model-server-cpu"]}


def test_services_are_those_of_one_machine():
    assert set(composed(BASE)) == {"listener", "worker", "model-server", "worklist"}
    assert set(composed(CPU)) == {"listener", "worker", "model-server-cpu", "worklist"}
    assert set(composed(BASE, ALL_PROFILES)) - set(composed(BASE)) == {
        "trainer", "tensorboard", "prometheus", "reconcile"
    }  # fmt: skip


def test_no_service_is_root_or_may_become_it():
    for name, service in with_everything().items():
        user, _, group = str(service["user"]).partition(":")
        assert int(user) > 0 < int(group), name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert {"privileged", "cap_add", "network_mode", "devices"}.isdisjoint(service), name


def test_root_file_systems_are_read_only():
    assert [name for name, service in with_everything().items() if service.get("read_only") is not True] == []


def test_each_service_has_a_health_check_and_an_end():
    for name, service in with_everything().items():
        check = service["healthcheck"]
        assert check["test"][0] in {"CMD", "CMD-SHELL"}, name
        assert {"interval", "timeout", "retries", "start_period"} <= set(check), name
        assert service["restart"] == ("no" if name == "trainer" else "unless-stopped"), name
        assert service["logging"]["options"]["max-size"], name


def test_images_are_pinned_to_a_version():
    for name, service in with_everything().items():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-gpu)?", service["image"]), name
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^ARG PYTHON_IMAGE=(.*)$", dockerfile, re.MULTILINE) == ["python:3.11.14-slim-bookworm"]
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${PYTHON_IMAGE}", "base"}


def test_environment_holds_only_settings_and_tuning():
    known = (
        {row.environment for row in product_rows()}
        | set(MALLOC)
        | {"TF_CPP_MIN_LOG_LEVEL", "CUDA_CACHE_PATH", "NVIDIA_TF32_OVERRIDE"}
    )

    for name, service in with_everything().items():
        assert set(service.get("environment", {})) <= known, name
        assert "env_file" not in service, name


def test_no_file_holds_anything_like_a_secret():
    secret = re.compile(
        r"(?i)\b(password|passwd|secret|token|api_?key)\b\s*[:=]\s*\S|-----BEGIN|\b[A-Za-z0-9+/]{40,}\b"
    )

    files = [ROOT / name for name in CPU] + sorted(path for path in (ROOT / "docker").iterdir() if path.suffix != ".md")

    assert [path.name for path in files if secret.search(path.read_text(encoding="utf-8"))] == []


def test_ports_are_published_on_loopback_unless_the_site_says_otherwise():
    published = {name: service["ports"] for name, service in with_everything().items() if service.get("ports")}

    assert set(published) == {"listener", "worklist", "prometheus", "tensorboard"}
    for name, ports in published.items():
        assert all(str(port).startswith("127.0.0.1:") for port in ports), name


def test_site_chooses_addresses_ports_and_ae_title():
    site = {"DICOM_ADDRESS": "192.0.2.7", "DICOM_PORT": "104", "AE_TITLE": "HEADCT", "WORKLIST_PORT": "8443"}

    services = composed(BASE, site=tuple(site.items()))

    assert services["listener"]["ports"] == ["192.0.2.7:104:11112/tcp"]
    assert services["listener"]["environment"] == {"ICH_TRIAGE_LISTENER__AE_TITLE": "HEADCT"}
    assert services["worklist"]["ports"] == ["127.0.0.1:8443:8080/tcp"]


def test_model_endpoint_is_reached_by_worker_and_prometheus_alone():
    services = composed(BASE, ALL_PROFILES)

    beside = {name for name, service in services.items() if "serving" in service["networks"]}

    assert beside == {"model-server", "worker", "prometheus"}
    assert list(services["model-server"]["networks"]) == ["serving"]
    assert "internal: true" in (ROOT / "docker-compose.yml").read_text(encoding="utf-8").partition("  serving:\n")[2]


def test_gpu_is_reserved_but_for_the_cpu_file():
    reserved = composed(BASE)["model-server"]["deploy"]["resources"]["reservations"]["devices"]

    assert reserved == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert all("deploy" not in service for service in composed(CPU).values())


def test_cpu_model_server_is_the_gpu_one_without_gpu():
    gpu, cpu = composed(BASE)["model-server"], composed(CPU)["model-server-cpu"]
    own = {"image", "deploy", "networks"}

    assert {k: v for k, v in cpu.items() if k not in own} == {k: v for k, v in gpu.items() if k not in own}
    assert cpu["networks"]["serving"]["aliases"] == ["model-server"]
    assert f"{cpu['image']}-gpu" == gpu["image"]


def test_model_on_a_gpu_computes_in_float32():
    assert composed(BASE)["model-server"]["environment"]["NVIDIA_TF32_OVERRIDE"] == "0"


def test_both_ends_of_the_endpoint_keep_their_pages():
    for service in (composed(BASE)["worker"], composed(BASE)["model-server"], composed(CPU)["model-server-cpu"]):
        assert {name: service["environment"][name] for name in MALLOC} == MALLOC


def test_prometheus_reads_the_worker_where_it_shows_its_metrics():
    worker = load_settings(ROOT / "docker" / "triage.toml").worker
    read = (ROOT / "docker" / "prometheus.yml").read_text(encoding="utf-8")
    networks = [set(composed(BASE, ALL_PROFILES)[name]["networks"]) for name in ("worker", "prometheus")]

    assert f'targets: ["worker:{worker.metrics_port}"]' in read
    assert worker.metrics_host == "0.0.0.0"
    assert networks[0] & networks[1]


def test_everything_mounted_from_the_repository_exists():
    for name, service in with_everything().items():
        sources = [volume.split(":")[0] for volume in service["volumes"] if volume.startswith(f"{ROOT}/")]
        missing = [source for source in sources if not Path(source).exists() and name != "trainer"]
        assert missing == [], name


def test_settings_of_the_containers_fit_the_files():
    settings = load_settings(ROOT / "docker" / "triage.toml")

    for name in BUILT:
        volumes = composed(BASE)[name]["volumes"]
        assert f"storage:{settings.storage.folder}:rw" in volumes
        assert any(volume.endswith(f":{SITE_CONFIG}:ro") for volume in volumes)
    assert settings.worker.endpoint == "model-server:8500"
    everything = composed(BASE, ALL_PROFILES)
    assert f'targets: ["listener:{settings.listener.metrics_port}"]' in (ROOT / "docker" / "prometheus.yml").read_text()
    assert set(everything["listener"]["networks"]) & set(everything["prometheus"]["networks"])
    assert set(everything["listener"]["networks"]) & set(everything["reconcile"]["networks"])
    assert everything["reconcile"]["environment"]["ICH_TRIAGE_RECONCILE__LISTENER_HOST"] == "listener"
    assert composed(BASE)["listener"]["ports"] == [f"127.0.0.1:11112:{settings.listener.port}/tcp"]
    assert composed(BASE)["worklist"]["ports"] == [f"127.0.0.1:8080:{settings.worklist.port}/tcp"]


def test_model_server_is_told_of_the_model_that_workers_ask_for():
    settings = load_settings(ROOT / "docker" / "triage.toml")
    told = (MODELS_FOLDER / "models.config").read_text(encoding="utf-8")
    name = settings.worker.model_name

    assert re.search(rf"name:\s*['\"]{name}['\"]", told)
    assert re.search(rf"base_path:\s*['\"]/models/{name}['\"]", told)
    assert f"/v1/models/{name} " in " ".join(composed(BASE)["model-server"]["healthcheck"]["test"])


# ---------------------------------------------------------------- the Dockerfile


@cache
def target(name: str) -> str:
    """Give one stage of the Dockerfile, continued lines joined."""
    text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return re.split(r"^FROM .*", text.partition(f" AS {name}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("name", BUILT)
def test_image_and_compose_agree(name):
    service, stage = composed(BASE)[name], target(name)

    [check] = re.findall(r"^HEALTHCHECK .*? CMD (.*)$", stage, re.MULTILINE)
    [command] = re.findall(r"^CMD (\[.*\])$", stage, re.MULTILINE)

    assert check == service["healthcheck"]["test"][1].replace("$$", "$")
    assert json.loads(command) == service["command"]


@pytest.mark.parametrize("name", [*BUILT, "train"])
def test_image_installs_its_own_lock_and_ends_as_nobody_special(name):
    stage = target(name)

    assert f"COPY requirements/{name}.txt" in stage
    assert "pip install --require-hashes" in stage
    assert re.findall(r"^USER (\S+)$", stage, re.MULTILINE) == ["10001:10001"]


def test_build_context_lets_only_sources_in():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    copied = [name for name in re.findall(r"^COPY (?!--)(\S+)", dockerfile, re.MULTILINE) if name != "."]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = [name.rstrip("*") + "/" for name in project["packages"]["find"]["include"]]

    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}

    assert rules[0] == "*"
    assert {*packages, "*.py", "pyproject.toml", "README.md", "LICENSE"} <= allowed
    assert [name for name in copied if not any(name.startswith(each) for each in allowed)] == []


def test_commands_of_all_containers_are_commands_of_the_product():
    ours = {name: service["command"] for name, service in with_everything().items()}
    faults = {name: fault_in(shlex.join(command[1:])) for name, command in ours.items() if command[0] == "ich-triage"}

    assert faults == dict.fromkeys(("listener", "worker", "worklist", "trainer", "reconcile"))


# ---------------------------------------------------------------- each container's command, outside a container


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """What a container has in its PATH: `ich-triage` and `python`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ich-triage").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ich_triage "$@"\n')
    (folder / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for program in folder.iterdir():
        program.chmod(0o755)
    return folder


@pytest.fixture
def environment(bin_folder: Path) -> dict[str, str]:
    return {"PATH": f"{bin_folder}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The containers' settings with a folder, addresses and ports of this test; nobody answers at the endpoint."""
    values = tomllib.loads((ROOT / "docker" / "triage.toml").read_text(encoding="utf-8"))
    values["storage"]["folder"] = str(tmp_path / "storage")
    values["listener"] |= {"host": "127.0.0.1", "port": 0, "metrics_host": "127.0.0.1", "metrics_port": 0}
    values["worklist"] |= {"host": "127.0.0.1", "port": 0}
    values["worker"] |= {"endpoint": "127.0.0.1:1", "metrics_host": "127.0.0.1", "metrics_port": 0}
    path = tmp_path / "triage.toml"
    sections = (f"[{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in s.items()) for name, s in values.items())
    path.write_text("\n".join(sections), encoding="utf-8")
    return path


@contextmanager
def started(command: list[str], environment: dict[str, str], cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Run one container's command; it is killed if the test has not ended it."""
    with (cwd / "stderr.log").open("wb") as stderr:
        process = subprocess.Popen(
            command, env=environment, cwd=cwd, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ready_line(process: subprocess.Popen[str], folder: Path) -> dict[str, int]:
    """Wait for the line of JSON in which a process names its port."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"ended before it was ready:\n{(folder / 'stderr.log').read_text()}"
    return json.loads(line)


def healthy(service: Service, environment: dict[str, str], replaced: dict[str, str]) -> bool:
    """Run the service's health check with this test's ports and files instead of the container's."""
    kind, *check = service["healthcheck"]["test"]
    words = ["/bin/sh", "-c", *check] if kind == "CMD-SHELL" else check
    for there, here in replaced.items():
        words = [word.replace(there, here) for word in words]
    words = [word.replace("$$", "$") for word in words]
    return subprocess.run(words, env=environment, capture_output=True, check=False, timeout=30).returncode == 0


def wait_until_healthy(process: subprocess.Popen[str], *arguments: Any, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not healthy(*arguments):
        assert process.poll() is None, "the process has ended"
        assert time.monotonic() < deadline, f"not healthy within {timeout_s:.0f} s"
        time.sleep(0.5)


@pytest.mark.parametrize(
    ("name", "ready", "port_there"), [("listener", "dicom_port", "11112"), ("worklist", "worklist_port", "8080")]
)
def test_container_command_serves_is_healthy_and_stops(name, ready, port_there, environment, config, tmp_path):
    service = composed(BASE)[name]
    command = [word.replace(SITE_CONFIG, str(config)) for word in service["command"]]
    replaced = {SITE_CONFIG: str(config)}
    assert not healthy(service, environment, replaced | {port_there: "1"}), (
        "a health check that nobody answers must fail"
    )

    with started(command, environment, tmp_path) as process:
        port = ready_line(process, tmp_path)[ready]

        wait_until_healthy(process, service, environment, replaced | {port_there: str(port)})
        process.terminate()
        code = process.wait(timeout=20)

    assert code == 0, (tmp_path / "stderr.log").read_text()


def test_worker_command_is_healthy_without_a_model_and_stops(environment, config, tmp_path):
    service = composed(BASE)["worker"]
    replaced = {SITE_CONFIG: str(config)}

    with started(
        [word.replace(*next(iter(replaced.items()))) for word in service["command"]], environment, tmp_path
    ) as (process):
        wait_until_healthy(process, service, environment, replaced)
        process.terminate()
        code = process.wait(timeout=20)

    assert code == 0, (tmp_path / "stderr.log").read_text()
    assert not healthy(service, environment, replaced), "a worker that has left is not healthy"


def file_of_flag(service: Service, flag: str) -> Path:
    """Give the file of the repository that a flag of the container names, by where the container mounts it."""
    [there] = [word.partition("=")[2] for word in service["command"] if word.startswith(f"--{flag}=")]
    for volume in service["volumes"]:
        source, target, _ = volume.split(":")
        if Path(there).is_relative_to(target):
            return Path(source) / Path(there).relative_to(target)
    raise AssertionError(f"{there} is mounted nowhere")


SERVER_FILES = {
    "models_config_file": "model_config_file",
    "batching_parameters_file": "batching_parameters_file",
    "monitoring_config_file": "monitoring_config_file",
}


@pytest.mark.parametrize("files", [BASE, CPU])
def test_model_server_batches_and_mounts_each_file_that_it_is_told_of(files):
    [service] = [service for name, service in composed(files).items() if name.startswith("model-server")]

    found = {flag: file_of_flag(service, flag) for flag in SERVER_FILES.values()}

    assert "--enable_batching=true" in service["command"]
    assert all(file.is_file() and file.is_relative_to(ROOT) for file in found.values()), found


@pytest.mark.slow
def test_embedded_server_reads_the_container_s_files_and_passes_its_health_check(environment, config, tmp_path):
    """With the same `models.config`, batching and monitoring files it answers Predict, REST and metrics alike."""
    service = composed(BASE)["model-server"]
    settings = {setting: str(file_of_flag(service, flag)) for setting, flag in SERVER_FILES.items()}
    settings |= {"models_folder": str(MODELS_FOLDER), "host": "127.0.0.1"}
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    config.write_text(
        "\n".join([config.read_text(), "[server]", "port = 0", "rest_port = 0", *lines]), encoding="utf-8"
    )
    assert not healthy(service, environment, {"8501": "1"})

    with started(["ich-triage", "serve", "--config", str(config)], environment, tmp_path) as process:
        ports = ready_line(process, tmp_path)
        with ServingClient(f"127.0.0.1:{ports['grpc_port']}", "ich_unet", timeout_s=60) as client:
            spec, version = client.spec()
            hu = np.zeros((2, spec.rows, spec.columns, 2 * spec.context + 1), np.int16)
            maps = client.predict(hu, spec=spec, version=version)
        metrics = metrics_page(ports["rest_port"])

        assert healthy(service, environment, {"8501": str(ports["rest_port"])})
        assert not healthy(service, environment, {"8501": str(ports["rest_port"]), "ich_unet": "other"})

    assert maps.shape == (2, spec.rows, spec.columns)
    assert ':tensorflow:serving:request_count{model_name="ich_unet",status="OK"} 2' in metrics
    assert re.search(
        r"^:tensorflow:serving:batching_session:processed_batch_size_count\{\} [1-9]", metrics, re.MULTILINE
    )


def metrics_page(rest_port: int) -> str:
    """Read the metrics where docker/prometheus.yml looks for them."""
    read = (ROOT / "docker" / "prometheus.yml").read_text(encoding="utf-8")
    [path] = re.findall(r"metrics_path: (\S+)", read)
    with urllib.request.urlopen(f"http://127.0.0.1:{rest_port}{path}", timeout=30) as answer:
        return answer.read().decode()
