"""Override strings as a person may type them, right and wrong, drawn at random."""

from enum import Enum
from random import Random

from pmexp.command.schema import groups, keys, options, type_at

_PREFIXES = ["", "", "", "", "", "", "+", "++", "~"]
_ODD_KEYS = [
    "foo", "train.warmup_steps", "train.learning_rate", "variant.foo", "train", "measure", "robustness.ood",
    "robustness.ood.name", "model.architecture", "model.architecture.hidden_size", "protocol.criteria",
    "protocol.criteria.new.claim", "dataset.metrics.0", "dataset.metrics.7", "system.parts.0", "hydra", "",
    "hydra/launcher", "hydra/sweeper", "hydra/job_logging", "hydra.sweep.dir", "hydra.mode", "hydra.job.chdir",
    "hydra.verbose", "hydra.searchpath", "hydra.sweeper.params", "hydra.sweeper.params.seed", "_self_", "defaults",
    "run_schema", "variant@train", "dataset@robustness.ood", "criteria@protocol.criteria", "task/memory", "a/b/c",
    "näme", "name ", " name", "na me", "train..lr", ".lr", "train.", "$x", "train.lr.x", "seed.0", "model@", "@model",
]  # fmt: skip
_SCALARS = [
    "", "0", "1", "-1", "7", "007", "1_000", "0x10", "1e3", "12e4567", "-1e-3", ".5", "5.", "nan", "inf", "-inf",
    "true", "FALSE", "on", "off", "yes", "null", "NULL", "None", "~", "2024-01-01", "12:30", "x", "a-b", "philox",
    "torch", "cpu", "best", "???", "_none_", "9" * 30, "9" * 5000, "x" * 300, "../up", "./x", "~/data", "50%", "größe",
    "a b", " x ", "a=b", "a:b", "a,b", "(x)", "data (1)", "f(x)", "[", "]", "{", "}", "it's", 'a"b', "'a", '"a', "'a b'",
    '"a b"', "\\", "a\\b", "a\\,b", "\\$x", "$x", "$", "#x", "x#y", "a;b", "a&b", "a|b", "*", "?", "!", "^", "`x`", "\t",
    "\n", "a\nb", "\x00", "\u202e", "🙂", "\ud800", "sqlite:///x", "http://[::1", "http://h:99999", "//", "http://",
    "${seed}", "${name}", "${train.lr}", "${oc.env:HOME}", "${oc.env:NOPE}", "${oc.env:NOPE,x}", "${", "${}", "${x.y}",
    "${.lr}", "${..seed}", "${hydra:job.name}", "${oc.select:seed}", "${oc.create:{}}", "${tracking}", "a${seed}b",
    "int(3)", "float(x)", "str(1)", "bool(2)", "choice(1,2)", "choice()", "range(3)", "range(0,1,0)", "range(1,0)",
    "range(0,9999999)", "interval(0,1)", "glob(*)", "sort(2,1)", "shuffle(1,2)", "tag(t,choice(1,2))", "choice(range(2))",
]  # fmt: skip


class Grammar:
    """Draws overrides; the same seed draws the same."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._keys = [key for key in keys() if not key.startswith("hydra.")]
        self._launcher_keys = [key for key in keys() if key.startswith("hydra.")]

    def override(self) -> str:
        draw = self._random.random()
        if draw < 0.04:
            return self._noise()
        key = self._key()
        if draw < 0.07:
            return f"{self._random.choice(_PREFIXES)}{key}"
        return f"{self._random.choice(_PREFIXES)}{key}={self._value(key, depth=0)}"

    def command_line(self) -> list[str]:
        """Draws a command line of one override, at times with a second one, at times with a sweep."""
        words = [self.override()]
        if self._random.random() < 0.15:
            words.append(self.override())
        if self._random.random() < 0.3:
            words.insert(self._random.randrange(len(words) + 1), "-m")
        return words

    def _key(self) -> str:
        draw = self._random.random()
        if draw < 0.25:
            return self._random.choice(_ODD_KEYS)
        if draw < 0.45:
            return self._random.choice(sorted(groups()))
        if draw < 0.5:
            return self._random.choice(self._launcher_keys)
        key = self._random.choice(self._keys)
        return self._misspelt(key) if draw > 0.95 else key

    def _misspelt(self, key: str) -> str:
        at = self._random.randrange(len(key))
        return key[:at] + self._random.choice(["", ".", "_", "x", "-", "é"]) + key[at + 1 :]

    def _value(self, key: str, depth: int) -> str:
        draw = self._random.random()
        group = key.partition("@")[0]
        if draw < 0.3 and group in groups():
            return self._random.choice(options(group))
        if draw < 0.5:
            return self._fitting(key)
        if draw < 0.8 or depth > 2:
            return self._random.choice(_SCALARS)
        parts = [self._value(key, depth + 1) for _ in range(self._random.randrange(4))]
        if draw < 0.87:
            return ",".join(parts)
        if draw < 0.94:
            return f"[{','.join(parts)}]"
        return (
            "{"
            + ",".join(f"{self._random.choice(['name', 'p', 'a', '1', 'ü'])}:{part}" for part in parts)
            + "}"
        )

    def _fitting(self, key: str) -> str:
        hint = type_at(key)
        if isinstance(hint, type) and issubclass(hint, Enum):
            return self._random.choice(list(hint)).name
        return self._random.choice(
            {int: ["1", "8"], float: ["0.1", "1e-3"], bool: ["true", "false"]}.get(hint, ["x"])
        )

    def _noise(self) -> str:
        letters = "abz019=+~@./:,'\"$%{}[]() -_\\é\n"
        return "".join(self._random.choice(letters) for _ in range(self._random.randrange(12)))
