"""The settings as text: masked secrets, and a description of every setting."""

from pydantic import SecretStr

from infra.settings import Settings
from infra.settings_table import masked_values, model_settings_table, settings_table


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
    rows = settings_table().splitlines()[2:] + model_settings_table().splitlines()[2:]
    names = [row.split("`")[1] for row in rows]
    assert sorted(names) == sorted(Settings().values())
    assert all(row.rstrip(" |").rsplit("| ", 1)[1] for row in rows)


def test_current_values_include_those_of_the_model_size() -> None:
    values = masked_values(Settings(model_size="2m", optimizer={"lr": 0.5}))
    assert (values["backbone.width"], values["backbone.d_out"], values["optimizer.lr"]) == ("192", "64", "0.5")
