"""The configuration of a run as its command composes it."""

from pmexp.command.compose import compose
from pmexp.config import RunConfig


def config(*overrides: str) -> RunConfig:
    return compose(overrides)


DEFAULT = config()
