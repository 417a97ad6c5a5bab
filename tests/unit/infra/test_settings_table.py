"""The settings as text: masked secrets, and a description of every setting."""

from pydantic import SecretStr

from infra.settings import Settings
from infra.settings_table import masked_values, settings_table


def test_secrets_are_masked() -> None:
    settings = Settings(
        redis_url="redis://me:hush@h:1/0",
        kafka_sasl_password=SecretStr("hush"),
        kafka_ssl_key_password=SecretStr("hush"),
    )
    printed = f"{settings!r} {settings} {masked_values(settings)} {settings.model_dump()['kafka_sasl_password']}"
    assert "hush" not in printed
    assert masked_values(settings)["redis_url"] == "redis://me:**********@h:1/0"


def test_table_describes_every_setting() -> None:
    rows = settings_table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())
