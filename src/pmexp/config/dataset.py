"""`dataset.*`: which samples, where they come from, how they are cut, what is measured on them."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from pmexp.config.checks import check_at_least, check_between, check_hub_id, check_name
from pmexp.errors import UserError
from pmexp.metrics.task_metrics import TASK_METRICS
from pmexp.own_code import check_import_path, is_import_path


class DatasetKind(Enum):
    """Names the loaders of datasets."""

    digits = "digits"
    imagenet = "imagenet"
    reuters_r8 = "reuters_r8"
    text = "text"
    language = "language"
    listops = "listops"
    translation = "translation"
    django_messages = "django_messages"
    image_text = "image_text"
    digit_captions = "digit_captions"
    tagged = "tagged"


class Inputs(Enum):
    """Names what a sample is; a model takes some of these."""

    images = "images"
    texts = "texts"
    symbols = "symbols"
    image_texts = "image_texts"


INPUTS_OF = {
    DatasetKind.digits: Inputs.images,
    DatasetKind.imagenet: Inputs.images,
    DatasetKind.reuters_r8: Inputs.texts,
    DatasetKind.text: Inputs.texts,
    DatasetKind.language: Inputs.texts,
    DatasetKind.listops: Inputs.symbols,
    DatasetKind.translation: Inputs.texts,
    DatasetKind.django_messages: Inputs.texts,
    DatasetKind.image_text: Inputs.image_texts,
    DatasetKind.digit_captions: Inputs.image_texts,
    DatasetKind.tagged: Inputs.texts,
}
_BUNDLED = (DatasetKind.digits, DatasetKind.digit_captions)  # with scikit-learn
_ON_HUB = (
    DatasetKind.text,
    DatasetKind.language,
    DatasetKind.imagenet,
    DatasetKind.translation,
    DatasetKind.image_text,
    DatasetKind.tagged,
)
_OF_LOADERS = (
    "hub_id",
    "revision",
    "hub_config",
    "text_columns",
    "label_column",
    "image_column",
    "val_fraction",
)
_NAMED_CLASSES = (DatasetKind.text, DatasetKind.tagged, DatasetKind.reuters_r8)  # by texts of their files
OF_TARGETS = ("max_target_length", "source_prefix", "generation")  # keys of seq2seq alone
_CARVED = (  # kinds whose validation split is cut off train where they have none
    DatasetKind.digits,
    DatasetKind.reuters_r8,
    DatasetKind.text,
    DatasetKind.image_text,
    DatasetKind.digit_captions,
    DatasetKind.translation,
    DatasetKind.django_messages,
    DatasetKind.tagged,
)


class Objective(Enum):
    """Names what a model is trained to tell."""

    classification = "classification"  # the class of a sample
    regression = "regression"  # the number of a sample
    token_classification = "token_classification"  # the class of each word
    masked_lm = "masked_lm"
    causal_lm = "causal_lm"
    seq2seq = "seq2seq"


LANGUAGE = (Objective.masked_lm, Objective.causal_lm)  # whose texts are cut into blocks of one length
_OF_CLASSES = (Objective.classification, Objective.token_classification)
_OBJECTIVES = {  # what samples of a kind can be trained for
    **dict.fromkeys(DatasetKind, (Objective.classification,)),
    DatasetKind.reuters_r8: (Objective.classification, *LANGUAGE),
    DatasetKind.text: (Objective.classification, Objective.regression, *LANGUAGE),
    DatasetKind.language: LANGUAGE,
    DatasetKind.translation: (Objective.seq2seq,),
    DatasetKind.django_messages: (Objective.seq2seq,),
    DatasetKind.tagged: (Objective.token_classification,),
}


class Padding(Enum):
    """How long the texts of a batch are made."""

    max = "max"
    longest = "longest"
    bucketed = "bucketed"


@dataclass(kw_only=True)
class TreesConfig:
    """Generated expressions of listops; the defaults are those of Long Range Arena."""

    samples: int = 100_000  # 80 % train, 10 % val, 10 % test
    min_length: int = 500  # tokens: trees have more than this ...
    max_length: int = 2000  # ... and fewer than this
    max_depth: int = 10  # levels of operators and their arguments
    max_args: int = 10  # an operator has at most so many, and at least 2
    leaf_probability: float = 0.75  # that a node above max_depth is a digit
    seed: int = 0  # draws the data; a run's own seed changes nothing here

    def __post_init__(self) -> None:
        check_at_least("dataset.trees.samples", self.samples, 10)
        check_at_least("dataset.trees.min_length", self.min_length, 1)
        check_at_least("dataset.trees.max_length", self.max_length, self.min_length + 2)
        check_at_least("dataset.trees.max_depth", self.max_depth, 2)
        check_at_least("dataset.trees.max_args", self.max_args, 2)
        check_between("dataset.trees.leaf_probability", self.leaf_probability, 0.01, 0.99)
        check_between("dataset.trees.seed", self.seed, 0, 2**32 - 1)


@dataclass(kw_only=True)
class GenerationConfig:
    """How the targets of an evaluation are written, token by token and without random numbers."""

    beams: int = 1  # texts that are written side by side, of which the likeliest is taken; 1 is greedy
    max_length: int | None = None  # tokens after which a text ends; null: dataset.max_target_length

    def __post_init__(self) -> None:
        check_at_least("dataset.generation.beams", self.beams, 1)
        if self.max_length is not None:
            check_at_least("dataset.generation.max_length", self.max_length, 1)


@dataclass(kw_only=True)
class DatasetConfig:
    """Holds the keys of the group `dataset`."""

    name: str = MISSING  # how the report calls it
    kind: DatasetKind = MISSING
    objective: Objective = Objective.classification
    loader: str | None = None  # mypkg.load: gives samples as those of the kind; see docs/own-code.md
    options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the loader
    hub_id: str | None = None  # dataset on the Hugging Face hub
    hub_config: str | None = None  # the subset's name on the hub
    revision: str | None = None  # commit of the hub dataset
    path: str | None = None  # local folder, instead of the hub
    text_columns: list[str] = field(default_factory=list)  # a text, a pair, captions or words; a.b: b in a
    label_column: str = "label"  # column of the classes, of the numbers or of the tags of words
    case_sensitive_labels: bool = False  # labels that differ by case alone are classes of their own
    image_column: str = "image"  # column of the pictures, or of their files' names
    trees: TreesConfig = field(default_factory=TreesConfig)  # only of listops
    max_length: int = 128  # tokens; longer texts are cut, shorter ones padded
    max_target_length: int | None = None  # tokens of a target of seq2seq; null: max_length
    source_prefix: str = ""  # stands before each source of seq2seq: T5 has its tasks named so
    generation: GenerationConfig = field(default_factory=GenerationConfig)  # only of seq2seq
    padding: Padding = Padding.max  # to max_length, or the batch's longest; bucketed: of similar texts
    val_fraction: float = 0.1  # share of train carved off where the set has no validation split
    # The first one selects the model. mypkg.my_metric: a function (docs/own-code.md), more is better.
    metrics: list[str] = field(default_factory=lambda: ["accuracy"])  # scores of an evaluation
    epochs: int = 3  # recommended passes over train
    batch_size: int = 32  # recommended samples a step

    def __post_init__(self) -> None:
        check_name("dataset.name", self.name)
        check_hub_id("dataset.hub_id", self.hub_id)
        check_at_least("dataset.max_length", self.max_length, 2)
        check_at_least("dataset.epochs", self.epochs, 1)
        check_at_least("dataset.batch_size", self.batch_size, 1)
        check_between("dataset.val_fraction", self.val_fraction, 0.0, 0.5, open_low=True)
        if self.objective not in (objectives := _OBJECTIVES[self.kind]):
            raise UserError(
                f"dataset.objective: {self.objective.name} does not fit dataset.kind={self.kind.name}, whose "
                f"samples are for {' or '.join(each.name for each in objectives)}; choose that, or another "
                "dataset"
            )
        known = [name for name, metric in TASK_METRICS.items() if self.objective.name in metric.objectives]
        unknown = [name for name in self.metrics if name not in known and not is_import_path(name)]
        if unknown or not self.metrics:
            raise UserError(
                f"dataset.metrics: {unknown or '[]'} is no list of metrics of {self.objective.name}; "
                f"name some of {', '.join(known)}, or a function of your own, such as mypkg.my_metric"
            )
        if self.loader is None:
            self.options = {}
            self._refuse_other_places()
        else:
            check_import_path("dataset.loader", self.loader)
        self._settle_targets()
        if self.revision == "main":
            self.revision = None  # which means the same
        self.metrics = [self.metrics[0], *sorted(set(self.metrics[1:]) - {self.metrics[0]})]
        if self.kind is not DatasetKind.listops or self.loader:
            self.trees = TreesConfig()
        elif self.max_length % 256 or self.max_length < self.trees.max_length:
            raise UserError(
                f"dataset.max_length: {self.max_length} must be a multiple of 256 that is not less than "
                f"dataset.trees.max_length={self.trees.max_length}"
            )

    @property
    def without_effect(self) -> set[str]:
        """Keys that change nothing under the others' values; train.* has the epochs and batch size."""
        kind, from_hub = self.kind, self.kind in _ON_HUB and self.path is None
        labelled = kind in (DatasetKind.text, DatasetKind.tagged)
        labelled = labelled or (kind is DatasetKind.imagenet and from_hub)
        used = {
            "hub_id": from_hub,
            "revision": from_hub,
            "hub_config": from_hub or kind is DatasetKind.text,  # by it GLUE's server knows predictions
            "text_columns": kind
            in (
                DatasetKind.text,
                DatasetKind.language,
                DatasetKind.translation,
                DatasetKind.image_text,
                DatasetKind.tagged,
            ),
            "label_column": labelled,
            "case_sensitive_labels": kind in _NAMED_CLASSES and self.objective in _OF_CLASSES,
            "image_column": kind is DatasetKind.image_text or (kind is DatasetKind.imagenet and from_hub),
            "padding": INPUTS_OF[kind] is Inputs.texts and self.objective not in LANGUAGE,
            "max_length": INPUTS_OF[kind] is not Inputs.images,
            "val_fraction": kind in _CARVED,
            **dict.fromkeys(OF_TARGETS, self.objective is Objective.seq2seq),
        }
        if self.loader:  # which is given all of them
            used |= dict.fromkeys(_OF_LOADERS, True)
        return {"epochs", "batch_size"} | {key for key, has_effect in used.items() if not has_effect}

    def unused(self, key: str) -> str:
        """Why `dataset.<key>` was put back to its default; empty where it has a use."""
        group = key.partition(".")[0]
        if group == "trees" and self.kind is not DatasetKind.listops:
            return f"dataset={self.name} is not generated"
        if group == "options" and self.loader is None:
            return f"dataset={self.name} has no loader of its own"
        if group in OF_TARGETS and self.objective is not Objective.seq2seq:
            return f"dataset.objective={self.objective.name} writes no texts"
        return ""

    def _settle_targets(self) -> None:
        """Says how long targets are, or puts their keys back to the defaults where there are none."""
        if self.objective is not Objective.seq2seq:
            self.max_target_length, self.source_prefix, self.generation = None, "", GenerationConfig()
            return
        self.max_target_length = self.max_target_length or self.max_length
        check_at_least("dataset.max_target_length", self.max_target_length, 2)
        self.generation.max_length = self.generation.max_length or self.max_target_length

    def _refuse_other_places(self) -> None:
        """Raises UserError for keys of a place that this kind of dataset would not read."""
        if self.path is not None and self.kind in _BUNDLED:
            raise UserError(
                f"dataset.path: {self.path} would not be read, dataset={self.name} is bundled with "
                "scikit-learn; choose another dataset, or leave it out"
            )
        for key in ("hub_id", "hub_config", "revision"):
            if getattr(self, key) is not None and self.kind not in _ON_HUB:
                raise UserError(
                    f"dataset.{key}: {getattr(self, key)} would not be read, dataset={self.name} is not on "
                    f"the hub (dataset.kind={self.kind.name}); leave it out"
                )
