"""Every setting of the project, read once, in one documented table.

A value comes from the command line, else the environment (`PREMIERE_` + the name in capitals), else `.env`, else
`premiere.toml`, else its default. Where no broker or Redis is named, the commands find those of a running
`premiere up` of the same `data_dir`. Components get their own small dataclasses made from this; none gets it whole.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from infra.errors import SettingsError

PREFIX: Final = "PREMIERE_"
FILE: Final = Path("premiere.toml")  # in the working folder
RUNNING: Final = "running.json"  # where `premiere up` leaves its addresses, inside data_dir
RUNNING_FORMAT: Final = 1


def _also(field: str, name: str) -> AliasChoices:
    """Read a setting under its own name first, else under one that other tools use."""
    return AliasChoices(f"{PREFIX}{field}".upper(), name)


class Settings(BaseSettings):
    """The settings in force. Frozen; secrets are masked wherever it is printed."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        toml_file=FILE,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    bootstrap_servers: str = Field(
        default="",
        validation_alias=_also("bootstrap_servers", "KAFKA_BOOTSTRAP_SERVERS"),
        description="Kafka's address; empty: the embedded broker",
    )
    kafka_home: Path | None = Field(
        default=None,
        validation_alias=_also("kafka_home", "KAFKA_HOME"),
        description="folder of an Apache Kafka to start as embedded broker",
    )
    broker: Literal["embedded", "apache"] | None = Field(
        default=None,
        description="which broker to start where none is named; empty: apache with a kafka_home, else embedded",
    )
    kafka_security_protocol: str | None = Field(default=None, description="plaintext, ssl, sasl_plaintext or sasl_ssl")
    kafka_sasl_mechanism: str | None = Field(
        default=None, description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
    )
    kafka_sasl_username: str | None = Field(default=None, description="SASL user name")
    kafka_sasl_password: SecretStr | None = Field(default=None, description="SASL password")
    kafka_ssl_ca_location: Path | None = Field(default=None, description="file of the certificate authorities to trust")
    kafka_ssl_certificate_location: Path | None = Field(default=None, description="file of the client's certificate")
    kafka_ssl_key_location: Path | None = Field(default=None, description="file of the client's private key")
    kafka_ssl_key_password: SecretStr | None = Field(default=None, description="password of the private key")
    event_partitions: int = Field(default=8, ge=1, description="partitions of user-events, fixed for life")
    redis_url: str = Field(
        default="",
        repr=False,
        validation_alias=_also("redis_url", "REDIS_URL"),
        description="Redis's address (with its password); empty: the embedded one",
    )
    redis_ttl_days: float = Field(
        default=30, gt=0, description="days that a user's predictions live without being renewed"
    )
    data_dir: Path = Field(
        default=Path(".premiere"), description="folder of recovery stores, checkpoints, offline log and logs"
    )
    checkpoints: str = Field(default="", description="fsspec URL of the checkpoints; empty: checkpoints in data_dir")
    data: Path | None = Field(default=None, description="folder of a data set (events and titles) for the demo")
    text_encoder: str = Field(
        default="wordllama", description="wordllama, or a sentence-transformers model by name or path"
    )
    model: Literal["cpu", "2m", "10m", "50m", "200m", "1b"] = Field(
        default="cpu",
        description="size of the backbone: cpu (0.1 million parameters), 2m, 10m, 50m, 200m or 1b",
    )
    history: int = Field(default=200, ge=1, description="newest events of a user that an activity carries")
    horizons: Annotated[tuple[int, ...], NoDecode] = Field(
        default=(0, 3, 10),
        description="delays, in events of the viewer, that have a list of their own; comma-separated",
    )
    list_size: int = Field(default=100, ge=1, description="titles in a list")
    filter_seen: bool = Field(default=True, description="leave titles that a viewer has seen out of the lists")
    max_titles: int = Field(
        default=200_000, ge=1, description="titles with a row of their own; the longest unseen give way"
    )
    checkpoint_seconds: float = Field(
        default=5, gt=0, description="seconds of the log's own time between two checkpoints"
    )
    keep_checkpoints: int = Field(default=4, ge=2, description="newest checkpoints that are kept, pinned ones apart")
    anchor_hours: float = Field(
        default=24, ge=0, description="hours after which an old checkpoint is kept once more, as an anchor; 0: none"
    )
    offline_days: int = Field(
        default=365, ge=0, description="days that the offline log of user features keeps a row; 0: for ever"
    )
    refresh_budget_users_per_second: float = Field(
        default=200, gt=0, description="active users recomputed per second when a new version lands"
    )
    launch_places: int = Field(
        default=5, ge=0, description="last places of a list that titles without a history compete for"
    )
    launch_users: int = Field(default=256, ge=1, description="viewers that a new title is tried on when it launches")
    publish_users: int = Field(default=50_000, ge=1, description="active viewers that publish keeps in its cache")
    publish_tail: int = Field(
        default=200_000, ge=0, description="newest records of the log that publish makes its cache of at its start"
    )
    features_workers: int = Field(default=1, ge=1, le=64, description="processes of the flow features")
    titles_workers: int = Field(default=1, ge=1, le=64, description="processes of the flow titles")
    publish_workers: int = Field(default=1, ge=1, le=64, description="processes of the flow publish")
    recovery_partitions: int = Field(
        default=4, ge=1, le=64, description="files of a recovery store, fixed when it is made"
    )
    threads: int = Field(default=1, ge=1, description="threads of the numeric code in one flow")
    seed: int = Field(default=0, ge=0, description="seed of everything drawn at random")
    epoch_seconds: float = Field(
        default=1, gt=0, description="seconds between two snapshots of a flow's state and offsets"
    )
    metrics_host: str = Field(default="127.0.0.1", description="address that the flows' metrics listen on")
    metrics_port: int = Field(
        default=9464, ge=0, le=65_280, description="port of features' metrics, the other flows follow; 0: off"
    )

    @field_validator("horizons", mode="before")
    @classmethod
    def _numbers(cls, value: object) -> object:
        return value.split(",") if isinstance(value, str) else value

    @field_validator("horizons")
    @classmethod
    def _start_fresh(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value[:1] != (0,) or list(value) != sorted(set(value)):
            raise ValueError("it starts with 0 and rises, like 0,3,10")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings, TomlConfigSettingsSource(settings_cls)

    def kafka(self) -> dict[str, str]:
        """The configuration that every Kafka client starts from. Raises SettingsError where no broker is known."""
        if not self.bootstrap_servers:
            raise SettingsError("No Kafka is known: run `premiere up`, or set PREMIERE_BOOTSTRAP_SERVERS.")
        given = {name: getattr(self, name) for name in type(self).model_fields if name.startswith("kafka_")}
        passed = {_librdkafka(name): _plain(value) for name, value in given.items() if value and name != "kafka_home"}
        return {"bootstrap.servers": self.bootstrap_servers, **passed}

    def redis(self) -> str:
        """Redis's URL. Raises SettingsError where none is known."""
        if not self.redis_url:
            raise SettingsError("No Redis is known: run `premiere up`, or set PREMIERE_REDIS_URL.")
        return self.redis_url

    def workers(self, flow: str) -> int:
        """How many processes a flow is."""
        return int(getattr(self, f"{flow}_workers", 1))

    def checkpoints_url(self) -> str:
        """Where the learner's checkpoints lie: an fsspec URL."""
        return self.checkpoints or str(self.data_dir.resolve() / "checkpoints")

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, secrets in the clear: what a child process is started with."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {f"{PREFIX}{name.upper()}": _plain(value) for name, value in values.items() if value is not None}


def load(**given: Any) -> Settings:
    """The settings in force, `given` first, None apart. Raises SettingsError: what is wrong, in one sentence."""
    try:
        _refuse_unknown(tomllib.loads(FILE.read_text()) if FILE.exists() else (), "")
        _refuse_unknown([name for name in os.environ if name.startswith(PREFIX)], PREFIX)
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name, reason = first["loc"][0], first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"Setting {name} cannot be used: {reason} (see `premiere settings --table`).") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{FILE} cannot be read: {error}.") from None


def _refuse_unknown(names: Iterable[str], prefix: str) -> None:
    """A misspelt setting would be ignored in silence."""
    known = [prefix + (name.upper() if prefix else name) for name in Settings.model_fields]
    for name in set(names) - set(known):
        close = get_close_matches(name, known, 1)
        raise SettingsError(f"There is no setting {name}" + (f": did you mean {close[0]}?" if close else "."))


def connected(settings: Settings) -> Settings:
    """The same with what a running `premiere up` of its data_dir serves, unless another broker is set."""
    found = running(settings.data_dir)
    if not found or settings.bootstrap_servers not in ("", found["bootstrap_servers"]):
        return settings
    return settings.model_copy(update={**found, "redis_url": settings.redis_url or found["redis_url"]})


def running(data_dir: Path) -> dict[str, Any]:
    """The addresses that a living `premiere up` serves; empty where there is none. Raises SettingsError where another
    release wrote them."""
    try:
        found: dict[str, Any] = json.loads((data_dir / RUNNING).read_text())
        os.kill(int(found.pop("pid")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return {}
    if (form := found.pop("format", RUNNING_FORMAT)) != RUNNING_FORMAT:
        raise SettingsError(
            f"The `premiere up` that runs on {data_dir} is another release ({RUNNING} has format {form}): use that one."
        )
    return found


def _librdkafka(name: str) -> str:
    return name.removeprefix("kafka_").replace("_", ".")


def _plain(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(str(v) for v in value) if isinstance(value, tuple) else str(value)


def shown(settings: Settings) -> dict[str, str]:
    """Each setting in force by name, secrets masked."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    plain = {name: "" if v is None else str(v) if isinstance(v, SecretStr) else _plain(v) for name, v in values.items()}
    return {name: re.sub(r"(?<=:)[^:@/]*(?=@)", "**********", value) for name, value in plain.items()}


def settings_table() -> str:
    """All settings as a Markdown table: what docs/ shows."""
    rows = ["| setting | environment | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        names = [f"{PREFIX}{name.upper()}"] + ([str(alias.choices[-1])] if isinstance(alias, AliasChoices) else [])
        default = "" if field.default is None else _plain(field.default)
        rows.append(f"| `{name}` | {', '.join(f'`{n}`' for n in names)} | {default} | {field.description} |")
    return "\n".join(rows) + "\n"
