"""Feeds the embedded server mutated PredictRequests: each must end in a reply or in a status of TF Serving's.

`python -m benchmarks.fuzz_predict --messages 100000`. Every message is read in place and by the messages too, and both
must say the same. Messages that break a rule are written to a folder, to become tests.
"""

from __future__ import annotations

import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import click
from google.protobuf.message import DecodeError
from rich.console import Console

from inference.model_server import tensors
from inference.model_server.grpc_services import Answer, serving_methods
from inference.model_server.metrics import Metrics
from inference.model_server.predict import predict
from inference.model_server.predict_request import request_of_message
from inference.model_server.reload import ConfigReloader
from inference.model_server.servable_manager import ManagerTimes, ServableManager
from inference.model_server.server import model_loader
from inference.model_server.serving_api import ServingApi
from inference.model_server.statuses import StatusError
from inference.serving_messages import PREDICTION_SERVICE, serving_message

SEED_SHAPE = (1, 32, 32, 3)  # of valid requests: sizes that a U-Net can halve some times
LARGEST_TENSOR_BYTES = 16 * 2**20  # a mutated shape alone shall not fill this machine's memory
INTERESTING = (
    b"\x00",
    b"\x01",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x12\x00",
    b"hu",
)

# What differs within one kind of answer: names that were asked for, sets, numbers, and the place in the graph.
VARYING = re.compile(
    r"\".*\"(?= not found)|(?<=signature: ).*(?= Outputs)|(?<=label: ).*|\{.*?\}|\(.*\)|\d+|\n\t \[\[.*", re.DOTALL
)

console = Console()


def mutations(seeds: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Give `count` mutated messages, the same ones for the same `seed`."""
    chance = random.Random(seed)
    for _ in range(count):
        message = bytearray(chance.choice(seeds))
        in_fields, in_bytes = chance.choice(((1, 0), (3, 0), (1, 1), (0, 1), (0, 4), (0, 16)))
        if in_fields:
            message = _other_fields(bytes(message), in_fields, chance)
        for _ in range(in_bytes):
            chance.choice(_MUTATIONS)(message, chance, seeds)
        yield bytes(message)


def _other_fields(raw: bytes, changes: int, chance: random.Random) -> bytearray:
    """Change fields of a request, so that it stays a message."""
    request = serving_message("PredictRequest").FromString(raw)
    tensor = request.inputs["hu"]
    axes = tensor.tensor_shape.dim
    size = chance.choice((-1, 0, 1, 2, 3, 17, 2**20, 2**40, 2**63 - 1))
    kinds: list[Callable[[], object]] = [
        lambda: setattr(tensor, "dtype", chance.randrange(-1, 34)),
        lambda: setattr(chance.choice(axes) if axes else axes.add(), "size", size),
        lambda: axes.add(size=size),
        lambda: axes.pop() if axes else None,
        lambda: setattr(tensor.tensor_shape, "unknown_rank", True),
        lambda: setattr(tensor, "tensor_content", bytes(chance.randrange(64))),
        lambda: tensor.ClearField(chance.choice(("tensor_content", "int_val", "tensor_shape", "dtype"))),
        lambda: tensor.float_val.extend([float("nan"), float("inf")][: chance.randrange(3)]),
        lambda: tensor.string_val.append(b"\xff"),
        lambda: tensor.half_val.append(chance.randrange(2**16)),
        lambda: tensor.int64_val.append(-(2**63)),
        lambda: setattr(tensor, "version_number", 7),
        lambda: request.inputs.pop("hu", None),
        lambda: request.inputs[chance.choice(("", "hu", "image"))].CopyFrom(tensor),
        lambda: request.output_filter.append(chance.choice(("probability", "", "mask"))),
        lambda: setattr(request.model_spec, "name", chance.choice(("", "none", "\U0001f9e0"))),
        lambda: setattr(request.model_spec, "signature_name", chance.choice(("", "spec", "serving_default", "none"))),
        lambda: setattr(request.model_spec.version, "value", chance.choice((-1, 0, 1, 2**63 - 1))),
        lambda: setattr(request.model_spec, "version_label", chance.choice(("", "stable"))),
    ]
    for _ in range(changes):
        chance.choice(kinds)()
    return bytearray(request.SerializeToString(deterministic=True))


def _flip(message: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    if message:
        message[chance.randrange(len(message))] ^= 1 << chance.randrange(8)


def _insert(message: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at = chance.randrange(len(message) + 1)
    message[at:at] = chance.choice(INTERESTING)


def _overwrite(message: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at, value = chance.randrange(len(message) + 1), chance.choice(INTERESTING)
    message[at : at + len(value)] = value


def _delete(message: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at = chance.randrange(len(message) + 1)
    del message[at : at + chance.randrange(1, 9)]


def _cut(message: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    del message[chance.randrange(len(message) + 1) :]


def _join(message: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    other = chance.choice(seeds)
    message += other[chance.randrange(len(other) + 1) :]


def _repeat(message: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at = chance.randrange(len(message) + 1)
    message[at:at] = message[at : at + chance.randrange(1, 33)]


_MUTATIONS: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], None], ...] = (
    _flip,
    _insert,
    _overwrite,
    _delete,
    _cut,
    _join,
    _repeat,
)


def seed_messages(model: str, feed: str, shape: Sequence[int]) -> list[bytes]:
    """Give valid requests in each of the forms that clients send."""
    seeds: list[bytes] = []
    for values in ("content", "int_val", "filter", "version", "two"):
        request = serving_message("PredictRequest")()
        request.model_spec.name = model
        tensor = request.inputs[feed]
        tensor.dtype = 5  # int16
        elements = 1
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
            elements *= size
        if values == "content":
            tensor.tensor_content = bytes(2 * elements)
        else:
            tensor.int_val.extend([60, -1000, 70000][: 1 + len(seeds)])
        if values == "filter":
            request.output_filter.append("probability")
        if values == "version":
            request.model_spec.version.value = 1
            request.model_spec.signature_name = "serving_default"
        if values == "two":
            request.inputs["other"].CopyFrom(tensor)
        seeds.append(request.SerializeToString(deterministic=True))
    return seeds


def outcome(answer: Callable[[], bytes]) -> str:
    """Answer a message; gives its status, or the name of an error that no client should cause."""
    try:
        return "OK" if serving_message("PredictResponse").FromString(answer()).outputs else "EMPTY"
    except StatusError as error:
        return f"{error.code.name}: {error.message}"
    except DecodeError:
        return "NO MESSAGE"
    except Exception as error:  # noqa: BLE001  what is looked for
        return f"BROKEN {type(error).__name__}: {error}"


def broken_rules(raw: bytes, answer: Answer, api: ServingApi) -> tuple[str, str]:
    """Give a message's outcome, and what is wrong with it: "" for nothing."""

    def by_messages() -> bytes:
        request = request_of_message(serving_message("PredictRequest").FromString(raw))
        return predict(request, api.manager, api.metrics).to_bytes()

    in_place, plain = outcome(lambda: answer(raw, 0)), outcome(by_messages)
    if _without_place(in_place) != _without_place(plain):
        return in_place, f"in place {in_place!r}, by messages {plain!r}"
    return in_place, in_place if in_place.startswith(("BROKEN", "EMPTY")) else ""


def _without_place(ended: str) -> str:
    """Take the place in the graph off an error's text: of two branches that fail, either may be the first."""
    return ended.partition("\n\t [[")[0]


def api_of(models_folder: Path) -> ServingApi:
    """Load the models of a folder; no port is opened."""
    from inference.model_server.model_config import folder_configs
    from triage.settings import ServerSettings

    metrics = Metrics()
    manager = ServableManager(model_loader(ServerSettings(), None, metrics), ManagerTimes())
    configs = folder_configs(models_folder)
    manager.start(configs)
    manager.wait_until_available([config.name for config in configs])
    return ServingApi(manager, metrics, ConfigReloader(manager, metrics, models_folder))


def fuzz(
    api: ServingApi, seeds: Sequence[bytes], count: int, seed: int
) -> tuple[Counter[str], list[tuple[bytes, str]]]:
    """Feed mutated messages; gives how many ended how, and those that broke a rule."""
    answer = serving_methods(api)[f"/{PREDICTION_SERVICE}/Predict"]
    limit, tensors.LARGEST_TENSOR_BYTES = tensors.LARGEST_TENSOR_BYTES, LARGEST_TENSOR_BYTES
    counts: Counter[str] = Counter()
    broken = []
    try:
        for raw in mutations(seeds, count, seed):
            ended, wrong = broken_rules(raw, answer, api)
            counts[ended.partition(":")[0]] += 1
            if wrong:
                broken.append((raw, wrong))
    finally:
        tensors.LARGEST_TENSOR_BYTES = limit
    return counts, broken


def kept_by_outcome(answer: Answer, seeds: Sequence[bytes], count: int, seed: int) -> dict[str, bytes]:
    """Give the shortest message of each kind of outcome, by the outcome; names and numbers in it make no kind."""
    kept: dict[str, tuple[str, bytes]] = {}
    for raw in mutations(seeds, count, seed):
        ended = outcome(partial(answer, raw, 0))
        kind = VARYING.sub("", ended)
        if kind not in kept or (len(raw), raw) < (len(kept[kind][1]), kept[kind][1]):
            kept[kind] = ended, raw
    return {_without_place(ended): raw for ended, raw in sorted(kept.values())}


@click.command()
@click.option("--models", type=click.Path(path_type=Path, exists=True), default=Path("models"), show_default=True)
@click.option("--messages", default=100_000, show_default=True, help="How many.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same messages.")
def main(models: Path, messages: int, seed: int) -> None:
    """Fuzz Predict of the first model in a folder."""
    api = api_of(models)
    name = api.manager.configs()[0].name
    counts, broken = fuzz(api, seed_messages(name, "hu", SEED_SHAPE), messages, seed)
    api.manager.stop()
    for ended, count in counts.most_common():
        console.print(f"{count:8} {ended}")
    if broken:
        folder = Path(tempfile.mkdtemp(prefix="ich-triage-fuzz-"))
        for number, (raw, wrong) in enumerate(broken):
            (folder / f"{number}.binpb").write_bytes(raw)
            console.print(f"{number}: {wrong}", markup=False)
        raise click.ClickException(f"{len(broken)} messages broke a rule; they lie in {folder}")


if __name__ == "__main__":
    main()
