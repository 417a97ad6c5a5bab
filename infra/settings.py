"""All settings of the project: where each value comes from, its default and its meaning.

A value is taken from the first of these sources that has one: the command line, the environment (`PREMIERE_` plus the
name in capitals), `.env`, `premiere.toml`, the default. If no broker or Redis is set, commands use those of a
`premiere up` that runs on the same `data_dir` (infra.local.address_file). The command line reads the settings once.
Each component gets its own small dataclass made from them; no component gets the whole object.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from features.redis_address import parse
from infra.errors import SettingsError
from infra.learner_settings import learner_settings, log_settings
from infra.model_settings import TABLES, ModelTables
from infra.settings_checks import check_horizons, check_prefix, check_title_vectors
from infra.settings_errors import reason_for_people
from infra.settings_names import ENV_PREFIX, NESTED, as_text, check_names, variable
from streaming.kafka.client import PREFIX_KEY
from streaming.stores.list_client import NAMESPACE

SETTINGS_FILE: Final = Path("premiere.toml")  # in the working directory
ENV_FILE: Final = Path(".env")  # there too


def _alias(field: str, variable: str) -> AliasChoices:
    """Read a setting from its own variable first, else from `variable`, which other tools use too."""
    return AliasChoices(f"{ENV_PREFIX}{field}".upper(), variable)


class Settings(ModelTables):  # type: ignore[valid-type,misc]
    """The current settings. Frozen; secrets are masked in every printed form."""

    model_config = SettingsConfigDict(
        allow_inf_nan=False,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=NESTED,
        env_file=ENV_FILE,
        toml_file=SETTINGS_FILE,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    bootstrap_servers: str = Field(
        default="",
        validation_alias=_alias("bootstrap_servers", "KAFKA_BOOTSTRAP_SERVERS"),
        description="Kafka bootstrap servers, as host:port; empty: use the embedded broker",
    )
    kafka_home: Path | None = Field(
        default=None,
        validation_alias=_alias("kafka_home", "KAFKA_HOME"),
        description="Apache Kafka installation that is started as the local broker",
    )
    broker: Literal["embedded", "apache"] | None = Field(
        default=None,
        description="broker to start if bootstrap_servers is empty; default: apache with kafka_home, else embedded",
    )
    kafka_security_protocol: str | None = Field(default=None, description="plaintext, ssl, sasl_plaintext or sasl_ssl")
    kafka_sasl_mechanism: str | None = Field(
        default=None, description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
    )
    kafka_sasl_username: str | None = Field(default=None, description="SASL user name")
    kafka_sasl_password: SecretStr | None = Field(default=None, description="SASL password")
    kafka_ssl_ca_location: Path | None = Field(default=None, description="file of trusted certificate authorities")
    kafka_ssl_certificate_location: Path | None = Field(default=None, description="file with the client certificate")
    kafka_ssl_key_location: Path | None = Field(default=None, description="file with the client's private key")
    kafka_ssl_key_password: SecretStr | None = Field(default=None, description="password of the client's private key")
    event_partitions: int = Field(
        default=8, ge=1, le=4096, description="partitions of user-events; fixed once the topic exists"
    )
    redis_url: str = Field(
        default="",
        repr=False,
        validation_alias=_alias("redis_url", "REDIS_URL"),
        description="URL of Redis or of its Sentinels, with the password if it has one; empty: use the embedded Redis",
    )
    list_ttl_days: float = Field(
        default=30, gt=0, description="days until a user's lists in Redis expire if not rewritten"
    )
    prefix: Annotated[str, AfterValidator(check_prefix)] = Field(
        default="",
        max_length=64,
        description="name of this deployment in topics, groups and keys where several share a Kafka or a Redis",
    )
    data_dir: Path = Field(
        default=Path(".premiere"), description="folder for recovery stores, checkpoints, offline features and log files"
    )
    checkpoints: str = Field(
        default="", description="fsspec URL of the checkpoint folder; empty: `checkpoints` in data_dir"
    )
    data: Path | None = Field(
        default=None,
        description="folder with a dataset (events and titles) for `premiere demo`, `produce` and the experiments",
    )
    text_encoder: str = Field(
        default="wordllama",
        description="encoder of title texts: wordllama, or the name or path of a sentence-transformers model",
    )
    title_vectors: Annotated[str, AfterValidator(check_title_vectors)] = Field(
        default="",
        description="space of the vectors that launches bring, as NAME:WIDTH (1 to 2048 numbers); empty: none",
    )
    model_size: Literal["cpu", "2m", "10m", "50m", "200m", "1b"] = Field(
        default="cpu", description="size of the backbone in parameters: cpu (0.1 million), 2m, 10m, 50m, 200m or 1b"
    )
    activity_history: int = Field(
        default=200,
        ge=1,
        le=2000,  # the largest record, of ids with 256 bytes, stays below Kafka's limit of 1 MB
        description="number of recent events of the user in each record of the topic activity",
    )
    model_history: int = Field(
        default=100,
        ge=1,
        le=2000,
        description="number of recent events of a user that the model reads; at most activity_history",
    )
    horizons: Annotated[tuple[int, ...], NoDecode, AfterValidator(check_horizons)] = Field(
        default=(0, 3, 10),
        description="horizons, in events that will have passed when a list is read; one list each; comma-separated",
    )
    list_size: int = Field(default=100, ge=1, description="number of titles in a list")
    filter_seen: bool = Field(default=True, description="exclude titles that the user has already seen")
    max_titles: int = Field(
        default=200_000,
        ge=1,
        description="maximum catalog size; titles that never launched are evicted first, then the least recently used",
    )
    min_users_before_launch: int = Field(
        default=3, ge=1, le=100, description="distinct users with an event on an unlaunched title before it is learned"
    )
    version_gate: bool = Field(
        default=True,
        description="check each model version before it is announced; false: announce every version",
    )
    checkpoint_seconds: float = Field(
        default=5, gt=0, description="seconds of log time (record timestamps) between two checkpoints"
    )
    keep_checkpoints: int = Field(default=4, ge=2, description="newest checkpoints that are kept, besides others")
    long_term_checkpoint_hours: float = Field(
        default=24,
        ge=0,
        description="also keep a checkpoint that is one to two times this many hours old, and its successor; 0: none",
    )
    offline_days: int = Field(
        default=365, ge=0, description="days that the offline log keeps a row of user features; 0: forever"
    )
    refresh_budget_users_per_second: float = Field(
        default=200,
        gt=0,
        description="maximum rate, in users per second, at which lists are recomputed after a new model version",
    )
    new_title_slots: int = Field(
        default=5, ge=0, description="number of positions at the end of each list reserved for unseen titles"
    )
    launch_fanout_users: int = Field(
        default=256, ge=1, description="maximum number of users for whom a new title is scored at its launch"
    )
    publish_users: int = Field(default=50_000, ge=1, description="maximum number of users in the publish cache")
    publish_warmup_records: int = Field(
        default=200_000, ge=0, description="number of recent log records used to warm the publish cache at startup"
    )
    features_workers: int = Field(default=1, ge=1, le=64, description="worker processes of the flow features")
    titles_workers: int = Field(default=1, ge=1, le=64, description="worker processes of the flow titles")
    publish_workers: int = Field(default=1, ge=1, le=64, description="worker processes of the flow publish")
    recovery_partitions: int = Field(
        default=4, ge=1, le=64, description="files of a recovery store; fixed once it exists"
    )
    threads: int = Field(default=1, ge=1, description="threads for numeric code in each flow")
    seed: int = Field(default=0, ge=0, le=2_147_483_647, description="random seed")
    lease_seconds: float = Field(
        default=15, gt=0, description="seconds of silence after which another process may take over a flow"
    )
    transactions: bool = Field(
        default=True,
        description="let Kafka fence a replaced process of features or titles; false: for brokers without transactions",
    )
    epoch_seconds: float = Field(default=1, gt=0, description="seconds between two snapshots of state and offsets")
    log_format: Literal["text", "json"] = Field(
        default="text", description="form of the flows' log lines: text, or json (one object per line)"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="lowest level of log messages: debug, info, warning or error"
    )
    metrics_host: str = Field(default="127.0.0.1", description="address on which flows serve metrics")
    metrics_port: int = Field(
        default=9464, ge=0, le=65_280, description="metrics port of features; the other flows use the next ones; 0: off"
    )

    @field_validator("horizons", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return value.split(",") if isinstance(value, str) else value

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: str) -> str:
        if value:
            parse(value)
        return value

    @model_validator(mode="after")
    def _check_model(self) -> "Settings":
        if self.model_history > self.activity_history:
            raise ValueError(
                f"model_history {self.model_history} is more than activity_history {self.activity_history}: the model "
                "reads the history in the records of the topic activity"
            )
        learner_settings(self), log_settings(self)  # raise ValueError for a contradiction
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
        return init_settings, env_settings, dotenv_settings, TomlConfigSettingsSource(settings_cls)

    def kafka_config(self) -> dict[str, str]:
        """Base configuration of every Kafka client. Raises SettingsError if no broker is set."""
        if not self.bootstrap_servers:
            raise SettingsError("No Kafka broker is set: run `premiere up`, or set PREMIERE_BOOTSTRAP_SERVERS.")
        names = [name for name in type(self).model_fields if name.startswith("kafka_") and name != "kafka_home"]
        values = {name: getattr(self, name) for name in names}
        security = {_librdkafka_name(name): as_text(value) for name, value in values.items() if value}
        prefix = {PREFIX_KEY: self.prefix} if self.prefix else {}
        return {"bootstrap.servers": self.bootstrap_servers, **prefix, **security}

    @property
    def namespace(self) -> str:
        """The name of the deployment in Redis and in Feast."""
        return self.prefix or NAMESPACE

    def require_redis_url(self) -> str:
        """The Redis URL. Raises SettingsError if none is set."""
        if not self.redis_url:
            raise SettingsError("No Redis is set: run `premiere up`, or set PREMIERE_REDIS_URL.")
        return self.redis_url

    def worker_count(self, flow: str) -> int:
        """Number of worker processes of a flow."""
        return int(getattr(self, f"{flow}_workers", 1))

    def checkpoints_url(self) -> str:
        """The fsspec URL of the folder with the learner's checkpoints."""
        return self.checkpoints or str(self.data_dir.resolve() / "checkpoints")

    def environment(self) -> dict[str, str]:
        """These settings as environment variables for a child process. Secrets are not masked."""
        return {variable(name): as_text(value) for name, value in self.values().items() if value is not None}

    def values(self) -> dict[str, Any]:
        """The value of each setting by name; None for a field of a table that is not set."""
        values = {name: getattr(self, name) for name in type(self).model_fields if name not in TABLES}
        tables = {f"{table}.{name}": value for table in TABLES for name, value in getattr(self, table)}
        return values | tables


def load(**overrides: Any) -> Settings:
    """Read the settings; `overrides` that are not None have precedence. Raises SettingsError."""
    given = {name: value for name, value in overrides.items() if value is not None}
    check_names(list(Settings.model_construct().values()), SETTINGS_FILE, ENV_FILE)
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError(reason_for_people(error, list(given), SETTINGS_FILE, ENV_FILE)) from None


def _librdkafka_name(name: str) -> str:
    return name.removeprefix("kafka_").replace("_", ".")
