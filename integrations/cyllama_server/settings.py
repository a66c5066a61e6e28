"""What a server is configured with: flags, environment variables, or a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    JsonConfigSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import Self

from cyllama import GenerationConfig, ModelConfig


def _split(value: Any) -> Any:
    """Return the items of a list that an environment variable has as text, with commas between them."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(",") if item.strip()]


Texts = Annotated[list[str], NoDecode, BeforeValidator(_split)]
Secrets = Annotated[list[SecretStr], NoDecode, BeforeValidator(_split)]


class ServerSettings(BaseSettings):
    """The settings of a server.

    A flag of the command overrides the environment variable `CYLLAMA_` with the name of the setting, which overrides
    the file. In a variable, the items of a list have commas between them.

    >>> ServerSettings(model=["small=small.gguf"], port=9000).models
    {'small': 'small.gguf'}
    """

    model_config = SettingsConfigDict(env_prefix="CYLLAMA_", extra="forbid", validate_default=True)

    host: str = Field(
        default="127.0.0.1", description="Address to listen at. 0.0.0.0 is every network of this machine."
    )
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen at; 0 for any that is free.")
    model: Texts = Field(
        default=[],
        description="A model to serve: NAME=FILE or NAME=owner/repo:Q4_K_M, or the file alone. It is loaded when a "
        "request first names it. Repeat the flag for several. Without any, the embedded tiny-chat.",
    )
    option: Texts = Field(
        default=[],
        description="An option of LLM(...): n_ctx=4096 for all models, small.n_ctx=4096 for one. Repeat the flag for "
        "several.",
    )
    any_model: bool = Field(
        default=False, description="Answer requests for models that do not exist with the first model."
    )
    preload: bool = Field(
        default=True, description="Load the first model at the start, instead of with its first request."
    )
    memory_budget_mb: int | None = Field(
        default=None,
        ge=1,
        description="Most MiB that loaded models may take, with their contexts and sessions: the least recently used "
        "one is unloaded.",
    )
    api_key: Secrets = Field(
        default=[],
        description="A key that requests have to present. The sessions of different keys are separate. Repeat the "
        "flag for several.",
    )
    api_key_file: Path | None = Field(default=None, description="A file with such keys, one in a line.")
    admin_key: SecretStr | None = Field(
        default=None, description="The key that may read /metrics, where requests have to present keys."
    )
    cors_origin: Texts = Field(
        default=[],
        description="A web site whose pages may use this server: https://example.com, or * for all. Repeatable.",
    )
    allowed_host: Texts = Field(
        default=[], description="A name that clients may address this server by, besides its address. Repeatable."
    )
    tls_cert: Path | None = Field(default=None, description="The certificate for HTTPS, a PEM file.")
    tls_key: Path | None = Field(default=None, description="The key of that certificate, a PEM file.")
    max_body_mb: float = Field(default=32, gt=0, le=4096, description="Largest body of a request, in MiB.")
    max_body_s: float = Field(
        default=120, gt=0, le=86400, description="Most seconds that the body of a request may take to arrive."
    )
    max_image_mp: float = Field(
        default=100,
        gt=0,
        le=10_000,
        description="Most megapixels of the images of a request, all together, as the files have them.",
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="Most tokens of any answer; by default the size of the context is the limit."
    )
    max_time_s: float = Field(
        default=600, gt=0, le=86400, description="Seconds after which an answer ends, with what there is of it."
    )
    max_queue: int = Field(
        default=64,
        ge=0,
        le=100_000,
        description="Most requests of a model that wait while others run; the next one gets 429.",
    )
    keep_alive_s: float = Field(
        default=15, gt=0, le=3600, description="Seconds without an event after which a stream says that it is alive."
    )
    shutdown_s: float = Field(
        default=30, ge=0, le=86400, description="Seconds that running answers have at a shutdown."
    )
    session_dir: Path | None = Field(
        default=None,
        description="Folder in which clients may save sessions, and where responses are kept beyond a restart; without "
        "one, neither is possible.",
    )
    page: bool = Field(
        default=True, description="Serve a page at / with a chat and with what the engine does, and /live/state."
    )
    log_level: str = Field(default="info", description="What is logged: debug, info, warning or error.")
    log_prompts: bool = Field(default=False, description="Log the bodies of requests. They may hold private data.")

    file: ClassVar[Path | None] = None

    @field_validator("model", "option")
    @classmethod
    def _check_names(cls, values: list[str]) -> list[str]:
        for value in values:
            if not value or value.startswith("=") or value.endswith("="):
                raise ValueError(f"expected NAME=VALUE, not {value!r:.80}")
        return values

    @field_validator("option")
    @classmethod
    def _check_options(cls, values: list[str]) -> list[str]:
        for value in values:
            name = value.partition("=")[0].rpartition(".")[2]
            if "=" not in value or name not in _OPTIONS:
                raise ValueError(f"there is no option of LLM(...) in {value!r:.80}: expected NAME=VALUE")
        return values

    @field_validator("api_key_file")
    @classmethod
    def _check_key_file(cls, value: Path | None) -> Path | None:
        try:
            if value is not None:
                value.read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"expected a file with a key in each line ({error.strerror})") from None
        return value

    @field_validator("session_dir")
    @classmethod
    def _check_folder(cls, value: Path | None) -> Path | None:
        if value is not None and value.exists() and not value.is_dir():
            raise ValueError("expected a folder")
        return value

    @field_validator("log_level")
    @classmethod
    def _check_level(cls, value: str) -> str:
        if value.lower() not in _LEVELS:
            raise ValueError(f"expected one of {', '.join(_LEVELS)}")
        return value.lower()

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: give both")
        if len(self.models) != max(1, len(self.model)):
            raise ValueError(f"two models have the same name: {', '.join(self.model)}; name them, NAME=MODEL")
        for value in self.option:
            owner = value.partition("=")[0].rpartition(".")[0]
            if owner and owner not in self.models:
                raise ValueError(
                    f"the option {value!r:.80} is for a model that is not served: there are {', '.join(self.models)}"
                )
        return self

    @property
    def models(self) -> dict[str, str | None]:
        """The file of each model by its name, the first one first; `None` for the embedded model."""
        return dict(map(_name_and_path, self.model)) or {"tiny-chat": None}

    def options_of(self, name: str) -> dict[str, Any]:
        """Return the options that one of the models is loaded with."""
        options: dict[str, Any] = {}
        for text in sorted(self.option, key=lambda text: "." in text.partition("=")[0]):  # those of one model last
            owner, _, option = text.partition("=")[0].rpartition(".")
            if owner in ("", name):
                options[option] = _value(text.partition("=")[2])
        return options

    @property
    def keys(self) -> list[str]:
        """All keys that requests may present."""
        lines = [] if self.api_key_file is None else self.api_key_file.read_text(encoding="utf-8").splitlines()
        return [*(key.get_secret_value() for key in self.api_key), *(line.strip() for line in lines if line.strip())]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not used: no file is read that was not named
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not used: secrets are in named files
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where settings come from, the most important source first."""
        if cls.file is None:
            return init_settings, env_settings
        source = JsonConfigSettingsSource if cls.file.suffix == ".json" else TomlConfigSettingsSource
        return init_settings, env_settings, source(settings_cls, cls.file)


def read_settings(file: Path | None = None, **given: Any) -> ServerSettings:
    """Return settings from a file, the environment and arguments.

    Args:
        file: A TOML or JSON file of settings by their names.
        **given: Settings by their names; they override the others.

    Raises:
        ValueError: A setting is not valid.
        OSError: The file cannot be read.
    """
    if file is None:
        return ServerSettings(**given)
    file.open().close()  # a file that is missing is an error

    class FromFile(ServerSettings):
        pass

    FromFile.file = file
    return FromFile(**given)


_OPTIONS = {*GenerationConfig.model_fields, *ModelConfig.model_fields}
_LEVELS = ("debug", "info", "warning", "error")


def _name_and_path(text: str) -> tuple[str, str | None]:
    name, separator, path = text.partition("=")
    if not separator:
        return (Path(text).stem if text.endswith(".gguf") else text), text
    return name, path


def _value(text: str) -> Any:
    """Return the value of an option: JSON, or else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


if sys.version_info < (3, 11):  # pragma: no cover - the library reads TOML by itself from 3.11 on
    import tomli  # noqa: F401 - TomlConfigSettingsSource imports it when it reads a file
