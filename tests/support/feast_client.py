"""A plain Feast client, as an application uses it."""

import os
from typing import Any
from urllib.parse import urlsplit

import features.feast_import  # noqa: F401 - Feast comes sooner without torch
from infra.settings import Settings

# isort: split
from feast import FeatureStore


def feast_client(settings: Settings) -> Any:
    """The client of a deployment. Feast reads the password of Redis from the environment."""
    before = os.environ.get("REDIS_PASSWORD")
    os.environ["REDIS_PASSWORD"] = urlsplit(settings.require_redis_url()).password or ""
    try:
        return FeatureStore(repo_path=str(settings.data_dir / "feast"))
    finally:
        del os.environ["REDIS_PASSWORD"]
        if before is not None:
            os.environ["REDIS_PASSWORD"] = before
