"""Contenders of the benchmarks by their names."""

from pmexp.bench.contenders import Contender, contenders

P = 0.1


def known(name: str, p: float = P) -> Contender:
    return next(contender for contender in contenders(p) if contender.name == name)
