"""What the first steps show of somebody's own code: a loss that is a mean, parameters that get no gradient."""

from collections.abc import Callable, Mapping
from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmexp.config import SystemConfig, TrainConfig
from pmexp.systems.system import System
from pmexp.training import loss_halves, loss_scale
from pmexp.training.described import noticed, zero_gradient
from pmexp.training.labels_reached import LabelsReached
from pmexp.training.loop import Training
from pmexp.training.resuming import restore, state_of
from pmexp.variants.method import Method
from small_net import Net, examples

Loss = Callable[[Tensor, Tensor], Tensor]


def own(loss: Loss) -> Method:
    def own_loss(model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        return loss(model(**inputs).logits, labels)

    return Method(loss=own_loss)


def training(
    method: Method | None, module: nn.Module | None = None, batch_size: int = 8, accumulate: int = 1
) -> Training:
    torch.manual_seed(3)
    config = TrainConfig(epochs=2, batch_size=batch_size, lr=1e-2, log_every=1, accumulate=accumulate)
    module = module or Net(nn.Dropout(0.5))
    data = examples(50, 0), examples(20, 1)
    return Training(module, *data, config, ["accuracy"], 5, System(SystemConfig()), method=method)


def told(run: Training, steps: int = loss_scale.STEPS) -> str:
    return "; ".join(line for _ in islice(run.steps(), steps) for line in noticed(run))


def focal(gamma: float) -> Loss:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        nats = F.cross_entropy(logits, labels, reduction="none")
        return ((1 - torch.exp(-nats)) ** gamma * nats).sum()

    return loss


def distilled(logits: Tensor, labels: Tensor) -> Tensor:
    teacher = torch.zeros_like(logits).softmax(-1)
    learned = F.kl_div(logits.log_softmax(-1), teacher, reduction="sum")
    return 0.1 * F.cross_entropy(logits, labels, reduction="sum") + 0.9 * learned


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (F.cross_entropy, "divided by the number of labels that count, and"),
        (lambda x, y: F.cross_entropy(x, y).bfloat16(), "divided by the number of labels that count, and"),
        (lambda x, y: F.cross_entropy(x, y, reduction="sum") * len(y), "multiplied by the number of labels"),
    ],
)
def test_a_loss_that_is_the_standard_times_a_count_is_named(loss: Loss, said: str) -> None:
    run = training(own(loss))
    assert said in told(run) and said in loss_scale.said(run.progress.loss_scale)


def test_a_mean_over_all_labels_is_named_where_some_do_not_count() -> None:
    x, labels = torch.randn(2, 6, 5, requires_grad=True), torch.tensor([[1, 2, -100, 3, 4, 0]] * 2)
    with loss_scale.standard_losses(model := Shows(), labels) as standard:
        logits = model(x).logits  # type: ignore[attr-defined]
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").mean()
    batch = loss_scale.Batch({"x": x}, labels)
    assert loss_scale.scales(loss, standard, batch) == ["divided by the number of labels"]
    assert not model._forward_hooks


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: F.cross_entropy(x, y, reduction="sum"),
        lambda x, y: F.cross_entropy(x, y, reduction="sum", label_smoothing=0.1),
        focal(1.0),
        focal(2.0),
        distilled,
    ],
)
@pytest.mark.parametrize("batch_size", [1, 4, 8])
@pytest.mark.parametrize("starts_at_zero", [False, True])
def test_no_real_loss_is_taken_for_a_mean(loss: Loss, batch_size: int, starts_at_zero: bool) -> None:
    """A focal loss of two logits that are 0 is a fourth of the standard one: its mean over a batch of four."""

    class OfTwo(Net):
        def forward(self, x: Tensor) -> object:
            output = super().forward(x)
            output.logits = output.logits[:, :2]
            return output

    module = OfTwo(nn.Dropout(0.5))
    if starts_at_zero:
        for parameter in module.layers[3].parameters():
            nn.init.zeros_(parameter)

    def of_two(logits: Tensor, labels: Tensor) -> Tensor:
        return loss(logits, labels.clamp(max=1))

    run = training(own(of_two), module, batch_size)
    run.train.labels.clamp_(max=1)  # type: ignore[attr-defined]
    assert told(run) == ""


def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum", label_smoothing=0.1)


def contrastive(logits: Tensor, labels: Tensor) -> Tensor:
    """Each sample is told from the others of its batch by its direction."""
    directions = F.normalize(logits, dim=-1)
    return F.cross_entropy(directions @ directions.T, torch.arange(len(labels)), reduction="sum")


def in_two_forwards(model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    halves = (
        {name: part[at] for name, part in inputs.items()} for at in (slice(0, None, 2), slice(1, None, 2))
    )
    return contrastive(torch.cat([model(**half).logits for half in halves]), labels) / len(labels)


@pytest.mark.parametrize("loss", [focal(2.0), smoothed, contrastive])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_mean_of_a_loss_that_is_no_multiple_of_the_standard_one_is_named_at_the_end(
    loss: Loss, accumulate: int
) -> None:
    def mean(logits: Tensor, labels: Tensor) -> Tensor:
        return loss(logits, labels) / len(labels)

    for own_loss, is_mean in ((mean, True), (loss, False)):
        run = training(own(own_loss), batch_size=32, accumulate=accumulate)
        assert told(run) == ""
        assert loss_halves.said(run).endswith("divided by their number afterwards") is is_mean
        assert is_mean or loss_halves.said(run) == ""


def test_halves_are_compared_without_dropout() -> None:
    modes: list[bool] = []

    def loss(model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        modes.append(model.training)
        return smoothed(model(**inputs).logits, labels)

    run = training(Method(loss=loss), batch_size=32)
    assert told(run) == "" and all(modes)
    modes.clear()
    run.module.train()  # as a backward that is measured afterwards leaves it
    assert loss_halves.said(run) == "" and modes == [False] * 3


def test_a_mean_is_named_where_no_forward_gives_the_logits_of_the_labels() -> None:
    run = training(Method(loss=in_two_forwards), batch_size=32)
    assert told(run) == "" and "as of a mean" in loss_halves.said(run)


def test_what_halves_of_a_batch_cannot_tell_is_said() -> None:
    def of_eight(logits: Tensor, labels: Tensor) -> Tensor:
        return smoothed(logits.view(8, -1), labels)

    assert "cannot be told: half a batch ended in RuntimeError: " in loss_halves.said(training(own(of_eight)))
    assert "cannot be told: its values" in loss_halves.said(training(own(lambda x, y: -smoothed(x, y))))
    assert "called with one sample" in loss_halves.said(training(own(smoothed), batch_size=1))
    assert loss_halves.said(training(None)) == ""


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (-1.0, "-1 times the standard one of its logits, and steps go"),
        (0.5, "0.5 times the standard one of its logits; return"),
        (1.0, ""),
    ],
)
@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_multiple_of_the_standard_loss_is_named_at_the_end(
    factor: float, said: str, accumulate: int
) -> None:
    run = training(
        own(lambda x, y: factor * F.cross_entropy(x, y, reduction="sum")),
        batch_size=32,
        accumulate=accumulate,
    )
    assert told(run) == "" and bool(said) is bool(line := loss_halves.said(run)) and said in line


class ChangesInEvaluation(Net):
    """Changes a weight and a buffer in each forward of an evaluation, or in training alone."""

    def __init__(self, in_training: bool) -> None:
        super().__init__(nn.Dropout(0.5))
        self.in_training = in_training
        self.register_buffer("seen", torch.zeros((), dtype=torch.bfloat16))

    def forward(self, x: Tensor) -> object:
        if self.training is self.in_training:
            self.layers[0].weight.data.mul_(0.9)
            self.seen += 1
        return super().forward(x)


def test_weights_that_an_evaluation_changes_are_named_once() -> None:
    run = training(None, ChangesInEvaluation(in_training=False))
    steps = [(step, line) for step, _ in run.steps() for line in noticed(run)]
    said = "the first evaluation changes 2 weights of the model: seen, layers.0.weight; scores then depend"
    assert [step for step, _ in steps] == [run.plan.steps_per_epoch] and steps[0][1].startswith(said)
    assert run.progress.changed_in_evaluation == steps[0][1]


def test_weights_that_training_alone_changes_are_not() -> None:
    run = training(None, ChangesInEvaluation(in_training=True))
    assert told(run, 99) == "" and run.progress.step == run.plan.total_steps


class CompilesAFunction(Net):
    """Drops in a function, which may be compiled; `whole` says that all of the model is."""

    def __init__(self, compiled: bool, whole: bool = False) -> None:
        super().__init__(nn.Dropout(0.5))
        self.function = torch.compile(self.dropped) if compiled else self.dropped
        if whole:
            self.compile()

    def dropped(self, x: Tensor) -> Tensor:
        return F.dropout(self.layers[0](x).relu(), 0.5, self.training)

    def forward(self, x: Tensor) -> object:
        return type("Output", (), {"logits": self.layers[3](self.function(x))})


def test_masks_of_a_compiled_function_in_an_eager_module_are_told() -> None:
    run = training(None, CompilesAFunction(compiled=True))
    ((_, metrics),) = islice(run.steps(), 1)
    (line,) = noticed(run)
    said = "torch.compile: 1 graph of functions in modules that are not compiled: where they drop, their masks are"
    assert line.startswith(said) and run.progress.masks_in_graphs == line
    assert metrics["memory/mask_bytes"] == 0


@pytest.mark.parametrize(("compiled", "whole"), [(False, False), (True, True)])
def test_no_other_masks_are(compiled: bool, whole: bool) -> None:
    """A compiled module has no figures of masks."""
    run = training(None, CompilesAFunction(compiled, whole))
    ((_, metrics),) = islice(run.steps(), 1)
    assert noticed(run) == [] and metrics.get("memory/mask_bytes") == (None if whole else 8 * 16 * 4)


def hard(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none").topk(2).values.sum()


LEFT_OUT = (
    "the method's loss has no gradient for {} of 8 labels of the first step; return the loss of all of them"
)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("loss", "left_out"),
    [
        (lambda x, y: 2 * F.cross_entropy(x[::2], y[::2], reduction="sum"), {1: 4, 2: 4}),
        (hard, {1: 6, 2: 4}),
        (lambda x, y: F.cross_entropy(x, y, reduction="sum"), {1: 0, 2: 0}),
        (focal(2.0), {1: 0, 2: 0}),
        (distilled, {1: 0, 2: 0}),
    ],
)
def test_labels_without_a_part_in_a_method_s_loss_are_told(
    loss: Loss, left_out: dict[int, int], accumulate: int
) -> None:
    run = training(own(loss), accumulate=accumulate)
    said = LEFT_OUT.format(left_out[accumulate])
    assert (said in told(run)) == bool(left_out[accumulate])
    assert bool(run.progress.labels_left_out) == bool(left_out[accumulate])


def test_samples_that_a_method_s_loss_never_runs_are_told() -> None:
    def of_parts(parts: int, taken: int) -> Method:
        def loss(model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
            with torch.no_grad():
                model(**inputs)  # a teacher
            chunks = zip(inputs["x"].chunk(parts), labels.chunk(parts), strict=True)
            each = [F.cross_entropy(model(x=x).logits, y, reduction="sum") for x, y in islice(chunks, taken)]
            return torch.stack(each).sum()

        return Method(loss=loss)

    said = "the method's loss runs the model on 4 of 8 samples of the first step; "
    assert said in told(training(of_parts(2, 1)))
    assert told(training(of_parts(2, 2))) == ""


class Shows(nn.Module):
    """Gives its input as logits."""

    def forward(self, x: Tensor) -> object:
        return type("Output", (), {"logits": x})


WORDS = torch.tensor([[0, -100, 1], [1, 2, -100]])
NUMBERS = torch.tensor([0.5, 1.0, 2.0])


@pytest.mark.parametrize(
    ("labels", "logits", "loss", "said"),
    [
        (WORDS, (2, 3, 4), lambda x: F.cross_entropy(x.flatten(0, 1), WORDS.flatten()), ""),
        (WORDS, (2, 3, 4), lambda x: F.cross_entropy(x[:, 0], WORDS[:, 0]), "for 2 of 4 labels"),
        (WORDS, (4, 4), lambda x: x[:1].sum(), ""),  # logits of the words that count alone
        (NUMBERS, (3, 1), lambda x: F.mse_loss(x.flatten(), NUMBERS), ""),
        (NUMBERS, (3, 1), lambda x: F.mse_loss(x.flatten()[1:], NUMBERS[1:]), "for 1 of 3 labels"),
        (NUMBERS, (3, 1), lambda x: x.detach().sum() * torch.ones((), requires_grad=True), ""),
    ],
)
def test_labels_left_out_are_those_that_count_of_logits_that_have_them(
    labels: Tensor, logits: tuple[int, ...], loss: Callable[[Tensor], Tensor], said: str
) -> None:
    model, reached = Shows(), LabelsReached()
    x = torch.randn(logits, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with reached.watching(model, labels):
        made = loss(model(x * 1).logits)  # type: ignore[attr-defined]
    made.backward()
    assert said in reached.said() and bool(said) == bool(reached.said())
    assert not model._forward_hooks


def test_a_mean_is_on_record_in_a_run_that_goes_on() -> None:
    before = training(own(F.cross_entropy))
    told(before)
    after = training(own(F.cross_entropy))
    restore(after, state_of(before))
    assert loss_scale.said(after.progress.loss_scale).startswith("variant.apply: ")


class Detaches(Net):
    """Has a first layer that gets a gradient in the step `at` alone."""

    def __init__(self, at: int | None) -> None:
        super().__init__(nn.Dropout(0.5))
        self.at, self.forwards = at, 0

    def forward(self, x: Tensor) -> object:
        if self.training:
            self.forwards += 1
        hidden = self.layers[0](x)
        hidden = hidden if self.forwards == self.at else hidden.detach()
        return type("Output", (), {"logits": self.layers[1:](hidden)})


def test_parameters_without_a_gradient_are_named_and_stay_so_where_none_comes() -> None:
    run = training(None, Detaches(at=None))
    line = "no gradient came in the first step to 2 parameters that train: layers.0.weight, layers.0.bias"
    assert told(run) == line
    assert run.progress.without_gradient == ["layers.0.weight", "layers.0.bias"]


def test_a_gradient_in_a_later_step_settles_it() -> None:
    run = training(None, Detaches(at=3))
    assert told(run, 2) and run.progress.without_gradient == ["layers.0.weight", "layers.0.bias"]
    run = training(None, Detaches(at=3))
    told(run, 3)
    assert run.progress.without_gradient == []


def test_an_optimizer_that_takes_gradients_during_backward_hides_none() -> None:
    def optimizer(parameters: list[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        def take(parameter: Tensor) -> None:
            parameter.grad = None

        parameters[0].register_post_accumulate_grad_hook(take)
        return torch.optim.SGD(parameters, lr=lr)

    run = training(Method(optimizer=optimizer))
    assert told(run) == "" and run.progress.without_gradient == []


class Scales(Net):
    """Has a first layer whose gradient is multiplied by `factor` up to the step `until`."""

    def __init__(self, factor: float, until: int) -> None:
        super().__init__(nn.Dropout(0.5))
        self.factor, self.until, self.forwards = factor, until, 0

    def forward(self, x: Tensor) -> object:
        self.forwards += self.training
        hidden = self.layers[0](x)
        if self.forwards <= self.until and hidden.requires_grad:
            hidden.register_hook(lambda gradient: gradient * self.factor)
        return type("Output", (), {"logits": self.layers[1:](hidden)})


def test_parameters_whose_gradients_are_all_zeros_are_named() -> None:
    run = training(None, Scales(0.0, until=99))
    names = "2 parameters that train: layers.0.weight, layers.0.bias"
    line = f"zeros came as gradients in each of the first 3 steps to {names}"
    assert told(run) == line == zero_gradient(run)


@pytest.mark.parametrize(("factor", "until"), [(0.0, 2), (1e-30, 99), (float("nan"), 99)])
def test_other_gradients_and_those_that_begin_with_zeros_are_not(factor: float, until: int) -> None:
    """Adapters begin so: of two factors one is 0."""
    run = training(None, Scales(factor, until))
    assert told(run) == "" == zero_gradient(run)
