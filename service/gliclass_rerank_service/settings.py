"""Settings of the service, in order of precedence: flags, environment (`GLICLASS_RERANK_...`), TOML file, defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from gliclass_rerank import OptionError, load_scorer
from gliclass_rerank.scorers.load import LoadedScorer
from gliclass_rerank.validation import check_bytes

PREFIX = "GLICLASS_RERANK_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
"""Variable with the path of the TOML file, for processes without flags, such as a worker's."""

KEY_VARIABLES = (f"{PREFIX}API_KEYS", f"{PREFIX}API_KEY")
"""Keys of both variables are accepted. An empty variable counts as unset."""


class Settings(BaseSettings):
    """Settings of the service: flags, ``GLICLASS_RERANK_FIELD`` in the environment, or keys of the file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    model: str = Field(
        default="mini",
        description='"mini", a checkpoint folder, a hub id, or a URL: http://... of a service, '
        "openai+http://host:8001/v1#model, systemone+http://host/v1#model, decisions+http://host/v1#model.",
    )
    backend: Literal["auto", "onnx", "torch"] = "auto"
    device: str = "auto"
    dtype: Literal["auto", "int8", "fp32", "bf16", "fp16"] = "auto"
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads: batches of the model that are computed in parallel. Default: the usable cores. One "
        "process holds one model on one device. For more processes start more services.",
    )
    passage_cache: int | str = Field(
        default=0,
        description='Memory for what the model has read of passages, such as "1GB". A passage that comes back costs '
        "only the tokens of its labels. Only for models with independent labels. 0 keeps nothing.",
    )
    concurrency: int | None = Field(
        default=None, ge=1, description="Concurrent requests to an OpenAI-compatible or decision server. Default: 16."
    )
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="Accepted keys, separated by commas in the environment. Without keys, here or in a file, everyone "
        "may call.",
    )
    api_key_file: Path | None = Field(
        default=None, description="File of accepted keys, one per line. # begins a comment line."
    )

    max_body_bytes: int = Field(default=16 * 2**20, ge=1024, description="Bytes of one request's body. More get 413.")
    max_texts: int = Field(default=2048, ge=1, description="Texts of one request. More get 413.")
    max_request_tokens: int = Field(default=262_144, ge=1, description="Estimated tokens of one request. More get 413.")
    max_concurrent_requests: int = Field(default=1024, ge=1, description="Requests in progress. More get 429.")
    max_queue_tokens: int = Field(default=262_144, ge=1, description="Estimated tokens in the queue. More get 429.")
    queue_batch_tokens: int = Field(
        default=16_384, ge=1, description="Estimated tokens of one batch, over all callers."
    )
    timeout_seconds: float = Field(
        default=60.0, gt=0, le=86_400, description="Limit for one request, its body included. Then it gets 504."
    )
    drain_seconds: float = Field(
        default=30.0, ge=0, le=86_400, description="Time to finish accepted requests at shutdown."
    )
    strict_model: bool = Field(default=False, description="Refuse requests that name another model with 404.")
    model_aliases: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("jev-latest",),
        description="Further names of the model, separated by commas in the environment. `/v1/models` lists them.",
    )

    broker_url: str | None = Field(default=None, description="Redis for jobs. Without one, jobs run in this process.")
    result_url: str | None = Field(default=None, description="Redis for the results of jobs. Default: the broker's.")
    job_ttl_seconds: float = Field(default=3600.0, gt=0, description="Time for which the result of a job is kept.")
    job_visibility_seconds: float = Field(
        default=300.0, gt=0, description="Time after which the job of a dead worker is run again."
    )
    max_jobs: int = Field(default=100, ge=1, description="Jobs that wait in this process. More get 429.")
    max_job_tokens: int = Field(
        default=8_388_608, ge=1, description="Estimated tokens of one job, each input with all labels. More get 413."
    )
    max_job_bytes: int = Field(
        default=256 * 2**20, ge=1, description="Bytes of waiting jobs and stored results in this process. More get 429."
    )

    ray_min_replicas: int = Field(default=1, ge=1, description="Least number of model processes under Ray Serve.")
    ray_max_replicas: int = Field(default=2, ge=1, description="Largest number of model processes under Ray Serve.")
    ray_target_ongoing_requests: float = Field(
        default=2.0, gt=0, description="Parts of batches per replica above which Ray Serve adds a replica."
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otlp_endpoint: str | None = Field(
        default=None,
        description="Endpoint for OpenTelemetry traces, such as http://localhost:4318/v1/traces.",
    )

    @field_validator("api_keys", mode="before")
    @classmethod
    def _divided(cls, value: object) -> object:
        """Split a string of keys, the format of the environment."""
        if not isinstance(value, str):
            return value
        keys = [key for key in (part.strip() for part in value.split(",")) if key]
        if value and not keys:
            raise ValueError("expected keys separated by commas, got none; leave it empty to let everyone call")
        return keys

    @field_validator("model_aliases", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        """Split a string of names, the format of the environment."""
        return (
            [name for name in (part.strip() for part in value.split(",")) if name] if isinstance(value, str) else value
        )

    @field_validator("api_keys")
    @classmethod
    def _not_empty(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        """Refuse an empty key, which would open the service to all."""
        if not all(key.get_secret_value().strip() for key in keys):
            raise ValueError("expected keys that are not empty, got an empty one; leave it out")
        return keys

    @field_validator("broker_url", "result_url", "otlp_endpoint", "api_key_file", mode="before")
    @classmethod
    def _none_if_empty(cls, value: object) -> object:
        """Treat an empty variable as unset, since compose files cannot leave one out."""
        return None if value == "" else value

    @field_validator("passage_cache", mode="before")
    @classmethod
    def _bytes(cls, value: object) -> int:
        """Read a number of bytes, with or without a unit."""
        return check_bytes(value, "memory")

    @model_validator(mode="after")
    def _ordered(self) -> Settings:
        if self.ray_min_replicas > self.ray_max_replicas:
            raise ValueError(f"ray_max_replicas: expected at least ray_min_replicas, {self.ray_min_replicas}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Sources of values. The first that has a value counts."""
        file = settings_cls.model_config.get("toml_file") or os.environ.get(CONFIG_VARIABLE)
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, _Environment(settings_cls))
        return (*sources, TomlConfigSettingsSource(settings_cls, toml_file=file)) if file else sources


class _Environment(EnvSettingsSource):
    """The environment, where keys may be in two variables."""

    def __call__(self) -> dict[str, Any]:
        given = [self.env_vars.get(name.lower()) for name in KEY_VARIABLES]
        read = {name: value for name, value in super().__call__().items() if name != "api_keys"}
        return read | ({"api_keys": ",".join(filter(None, given))} if any(given) else {})


def read_settings(file: str | Path | None = None, flags: Mapping[str, object] | None = None) -> Settings:
    """Read and combine settings.

    Args:
        file: a TOML file with fields of `Settings`. Default: the file of ``GLICLASS_RERANK_CONFIG``, if set.
        flags: fields that take precedence over all others. None counts as not given.

    Raises:
        OptionError: a missing file, one that is no TOML, an unknown field or an impossible value.
    """
    named = file or os.environ.get(CONFIG_VARIABLE)
    if named and not Path(named).is_file():
        raise OptionError(f"{named}: expected a TOML file with settings, got no file")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=named)

    given = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return FromFile(**given)  # type: ignore[arg-type]
    except ValidationError as error:  # its message contains values, keys among them
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5])
        raise OptionError(f"settings: {wrong}; flags, {PREFIX}... and {named or 'no file'} were read") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise OptionError(f"{named}: not readable as TOML: {error}") from error


def read_keys(settings: Settings) -> tuple[bytes, ...]:
    """API keys of the settings and of their file. Without keys the service is open to all.

    Raises:
        OptionError: the file cannot be read, or contains no key.
    """
    keys = [key.get_secret_value() for key in settings.api_keys]
    if settings.api_key_file is not None:
        try:
            lines = [line.strip() for line in settings.api_key_file.read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"api_key_file {settings.api_key_file}: cannot be read: {error}") from error
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise OptionError(f"api_key_file {settings.api_key_file}: expected one key per line, got none")
        keys += found
    return tuple(key.encode() for key in keys)


def load_model(settings: Settings) -> LoadedScorer:
    """Load the model of the settings, or connect to its server. See `load_scorer` for errors."""
    return load_scorer(
        settings.model,
        backend=settings.backend,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        passage_cache=settings.passage_cache,
        concurrency=settings.concurrency,
    )
