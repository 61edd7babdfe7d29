"""Which models to serve: the folder's own, or those of a `models.config`, as TF Serving reads it.

Reference:
    tensorflow_serving/config/model_server_config.proto; model_servers/server_core.cc (GetPlatform,
    ValidateModelConfigList, ValidateNoModelsChangePlatforms, CreateStoragePathRoutes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from inference.model_server.model_versions import VersionPolicy
from inference.model_server.statuses import invalid_argument
from inference.serving_messages import serving_message
from triage.errors import ConfigError

LATEST = VersionPolicy()
TENSORFLOW = "tensorflow"  # the only platform
MODEL_TYPE_TENSORFLOW = 1  # ModelType.TENSORFLOW, deprecated
CONTAINER_MODELS = Path("/models")  # where TF Serving's container has its models


@dataclass(frozen=True)
class ModelConfig:
    """One model to serve.

    Attributes:
        name: by which clients ask for it.
        base_path: folder with a sub-folder for each version.
        policy: which of them are served.
        labels: version by label.
    """

    name: str
    base_path: Path
    policy: VersionPolicy = LATEST
    labels: tuple[tuple[str, int], ...] = ()


def folder_configs(models_folder: Path) -> list[ModelConfig]:
    """Find the models of a folder: each sub-folder is one, named as it is.

    Raises:
        ConfigError: the folder is missing, or has no sub-folder.
    """
    try:
        names = sorted(child.name for child in models_folder.iterdir() if child.is_dir() and child.name[0] not in "._")
    except OSError as error:
        raise ConfigError(f"The models folder cannot be read: {error.strerror}: {models_folder}.") from error
    if not names:
        raise ConfigError(f"No model is in {models_folder}; expected a folder a model, e.g. ich_unet/1/saved_model.pb.")
    return [ModelConfig(name, (models_folder / name).resolve()) for name in names]


def read_server_config(file: Path) -> Any:
    """Read a `models.config`: a ModelServerConfig in text form.

    Raises:
        ConfigError: it cannot be read or parsed.
    """
    return read_text_message(file, "ModelServerConfig")


def read_text_message(file: Path, name: str) -> Any:
    """Read a configuration file in protocol buffers' text form.

    Raises:
        ConfigError: it cannot be read, or is no such message.
    """
    message = serving_message(name)()
    try:
        return text_format.Parse(file.read_text(encoding="utf-8"), message)
    except OSError as error:
        raise ConfigError(f"The file cannot be read: {error.strerror}: {file}.") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no {name} in text form: {error}") from error


def checked_configs(server_config: Any, models_folder: Path) -> list[ModelConfig]:
    """Give the models of a ModelServerConfig with a list of models.

    Args:
        server_config: the message.
        models_folder: stands for the container's /models, where that is not on this machine.

    Raises:
        StatusError: as TF Serving answers.
    """
    configs = server_config.model_config_list.config
    _check_list(configs)
    for config in configs:
        _check_platform(config)
    return [_model_config(config, models_folder) for config in configs]


def platform_changes(old: Mapping[str, str], configs: Iterable[Any]) -> None:
    """Check that no model changes its platform.

    Raises:
        StatusError: one does.
    """
    for config in configs:
        platform = platform_of(config)
        before = old.get(config.name, platform)
        if before != platform:
            raise invalid_argument(
                f"Illegal to change a model's platform. For model {config.name} platform was {before} and new platform "
                f"requested is {platform}"
            )


def platform_of(config: Any) -> str:
    """Give the platform of one message ModelConfig.

    Raises:
        StatusError: it has none, or says it twice.
    """
    if config.model_type:
        if config.model_platform:
            raise invalid_argument(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform."
            )
        if config.model_type != MODEL_TYPE_TENSORFLOW:
            raise invalid_argument(f"ModelServerConfig::model_type choice {config.model_type} not supported.")
        return TENSORFLOW
    if not config.model_platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, "
            f"model name is {config.name}"
        )
    return str(config.model_platform)


def _check_list(configs: Iterable[Any]) -> None:
    seen: set[str] = set()
    for config in configs:
        if config.name in seen:
            raise invalid_argument(f"Illegal to list model {config.name} multiple times in config list")
        seen.add(config.name)
    for config in configs:
        if not Path(config.base_path).is_absolute() and "://" not in config.base_path:
            raise invalid_argument(
                f"Expected model {config.name} to have an absolute path or URI; got base_path()={config.base_path}"
            )


def _check_platform(config: Any) -> None:
    platform = platform_of(config)
    if platform != TENSORFLOW:
        raise invalid_argument(f"Model {config.name} requests unsupported platform {platform}")


def _model_config(config: Any, models_folder: Path) -> ModelConfig:
    labels = tuple(sorted(config.version_labels.items()))
    return ModelConfig(config.name, _local_path(Path(config.base_path), models_folder), _policy(config), labels)


def _local_path(base_path: Path, models_folder: Path) -> Path:
    if base_path.is_relative_to(CONTAINER_MODELS) and not base_path.exists():
        return (models_folder / base_path.relative_to(CONTAINER_MODELS)).resolve()
    return base_path


def _policy(config: Any) -> VersionPolicy:
    policy = config.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return VersionPolicy(every=True)
    if choice == "specific":
        return VersionPolicy(latest=0, specific=tuple(policy.specific.versions))
    return VersionPolicy(latest=max(1, policy.latest.num_versions))
