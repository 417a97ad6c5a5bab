"""No form of a URL shows its secret."""

import pytest

from infra.masking import mask_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:hush@h:1/0", "redis://me:**********@h:1/0"),
        ("redis://:hush@h:1/0", "redis://:**********@h:1/0"),
        ("redis://:hu@sh@h", "redis://:**********@h"),
        ("redis://u:hu:sh@h", "redis://u:**********@h"),
        ("redis://:hu/sh@h", "redis://:**********@h"),
        ("redis://hush@h", "redis://**********@h"),
        ("redis://h:6379/0?password=hush", "redis://h:6379/0?password=**********"),
        ("redis://h?db=5&ssl_password=hush&a=1", "redis://h?db=5&ssl_password=**********&a=1"),
        ("redis+sentinel://u:hush@h:1,i:2/lists/0", "redis+sentinel://u:**********@h:1,i:2/lists/0"),
        ("redis+sentinel://h:1,i:2/lists?password=hush", "redis+sentinel://h:1,i:2/lists?password=**********"),
        ("abfs://c/p?sas_token=hush&x=1", "abfs://c/p?sas_token=**********&x=1"),
        ("s3://bucket/models", "s3://bucket/models"),
        ("host:9092", "host:9092"),
        ("", ""),
    ],
)
def test_secret_is_masked(url: str, shown: str) -> None:
    assert mask_url(url) == shown
    assert "hush" not in mask_url(url)
