"""Credentials are masked, and source code that only speaks of tokens and keys stays as it is."""

import pytest

from pmexp.masking import masked, masked_arguments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:hunter2@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("https://:p@ss/w0rd@host/x", "https://:***@host/x"),
        ("get http://host:5000/a@b", "get http://host:5000/a@b"),
        ("+  password: hunter2", "+  password: ***"),
        ('+HF_API_KEY = "hunter2"', '+HF_API_KEY = "***"'),
        ('{"client_secret": "hunter2"}', '{"client_secret": "***"}'),
        ("http://x/?a=1&password=hunter2&b=2", "http://x/?a=1&password=***&b=2"),
        ("dsn='UID=me;PWD=hunter2;x=1'", "dsn='UID=me;PWD=***;x=1'"),
        ("token=0a1b2c3d4e5f6a7b", "token=***"),
        ("use hf_abcdefghijklmnopqrst please", "use *** please"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIB\nAAAA\n-----END",
            "-----BEGIN RSA PRIVATE KEY-----***-----END",
        ),
        ("the value is planted-value here", "the value is *** here"),
    ],
)
def test_what_is_masked_in_text(text: str, expected: str) -> None:
    assert masked(text, {"SOME_TOKEN": "planted-value", "USER": "value"}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "rows = sorted(found, key=len)",
        "key = next(iter(names))",
        "tokenizer = from_folder(x)",
        "pad_token = tokenizer.eos_token",
        "tokens: 128",
        "password = getpass()",
        "hydra.launcher.n_jobs=4",
        "sqlite:////home/me/runs/mlflow.db",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert masked(text, {"TOKENIZERS_PARALLELISM": "tokenizer", "KEY": "n"}) == text


def test_arguments_of_a_command() -> None:
    given = [
        "train",
        "--token",
        "abc",
        "--api-key=abc",
        "hub.token=abc",
        "db_password=a b",
        "seed=1",
        "monkey=2",
    ]
    assert masked_arguments(given, {}) == [
        "train", "--token", "***", "--api-key=***", "hub.token=***", "db_password=***", "seed=1", "monkey=2",
    ]  # fmt: skip
