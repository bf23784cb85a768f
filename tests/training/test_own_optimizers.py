"""Optimizers of somebody's own: those with other weights for evaluations, that update during backward, that
leave parameters out, that compile their step, whose state is made of other tensors."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

from pmexp.config import Part, Schedule, SystemConfig, TrainConfig
from pmexp.errors import UserError
from pmexp.measure.flops import FlopCounter
from pmexp.measure.memory_by_category import bytes_of
from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.systems.engines.base import Engine
from pmexp.systems.engines.fsdp import FullyShard
from pmexp.systems.engines.zero import Zero1, Zero2
from pmexp.systems.ranks import Ranks
from pmexp.systems.system import System
from pmexp.training.described import noticed
from pmexp.training.loop import Training
from pmexp.training.resuming import restore, state_of
from pmexp.variants.method import Method
from small_net import Net, examples

Make = Callable[..., torch.optim.Optimizer]


def with_method(
    make: Callable[[nn.Module], Method], parts: tuple[Part, ...] = (), **options: Any
) -> Training:
    torch.manual_seed(3)
    given = {"epochs": 3, "batch_size": 8, "lr": 1e-2, "log_every": 1} | options
    config, system = TrainConfig(**given), System(SystemConfig(parts=list(parts)))
    module = Net(nn.Dropout(0.5))
    data = examples(50, 0), examples(20, 1)
    return Training(module, *data, config, ["accuracy"], 5, system, method=make(module))


def training(make: Make | None, parts: tuple[Part, ...] = (), **options: Any) -> Training:
    return with_method(lambda _: Method(optimizer=make), parts, **options)


class Averaging(torch.optim.SGD):
    """Evaluates at the mean of all weights that it has trained at, as schedule-free optimizers do."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, lr=lr, weight_decay=weight_decay)
        self.param_groups[0]["evaluates"] = False

    def train(self) -> None:
        self._turn(False)

    def eval(self) -> None:
        self._turn(True)

    def _turn(self, evaluates: bool) -> None:
        if self.param_groups[0]["evaluates"] is evaluates:
            return
        self.param_groups[0]["evaluates"] = evaluates
        for parameter in self.param_groups[0]["params"]:
            other = self.state[parameter].setdefault("mean", parameter.detach().clone())
            parameter.data, self.state[parameter]["mean"] = other.clone(), parameter.data.clone()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert not self.param_groups[0]["evaluates"]
        super().step()
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            state["steps"] = state.get("steps", 0) + 1
            mean = state.setdefault("mean", torch.zeros_like(parameter))
            mean.lerp_(parameter, 1 / state["steps"])


def test_evaluations_are_at_the_weights_that_the_optimizer_says() -> None:
    run = training(Averaging)
    trained_at: list[Tensor] = []
    for step, _ in run.steps():
        weight = next(run.module.parameters())
        if step % run.plan.steps_per_epoch == 0:  # just evaluated
            assert run.engine.optimizer.param_groups[0]["evaluates"]
            mean = torch.stack([*trained_at, run.engine.optimizer.state[weight]["mean"]]).mean(0)
            torch.testing.assert_close(weight, mean)
            trained_at.append(run.engine.optimizer.state[weight]["mean"].clone())
        else:
            trained_at.append(weight.detach().clone())
    assert len(trained_at) == run.plan.total_steps


@pytest.mark.parametrize("at", [2, 6, 7])  # the sixth step ends with an evaluation
def test_a_run_with_two_kinds_of_weights_goes_on_bit_for_bit(at: int) -> None:
    whole = training(Averaging)
    expected = list(whole.steps())
    before = training(Averaging)
    list(islice(before.steps(), at))
    state = state_of(before)
    after = training(Averaging)
    restore(after, state)
    assert list(after.steps()) == expected[at:]
    pairs = zip(after.module.parameters(), whole.module.parameters(), strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)


class InBackward(torch.optim.SGD):
    """Updates each parameter as soon as backward has its gradient, which it then drops."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, lr=lr, weight_decay=weight_decay)
        for parameter in self.param_groups[0]["params"]:
            parameter.register_post_accumulate_grad_hook(self.update)

    @torch.no_grad()
    def update(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.add_(parameter.grad, alpha=-self.param_groups[0]["lr"])  # as torch.optim.SGD
        parameter.grad = None

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


def plain(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr)


def test_updates_during_backward_are_those_after_it() -> None:
    during = list(training(InBackward, clip_norm=None).steps())
    after = list(training(plain, clip_norm=None).steps())
    for (_, ours), (_, theirs) in zip(during, after, strict=True):
        assert ours["train/loss"] == theirs["train/loss"]
        assert "grad/norm" not in ours and theirs["grad/norm"] > 0


def test_an_optimizer_of_parameters_that_an_engine_has_exchanged_is_refused() -> None:
    others = [nn.Parameter(torch.zeros(2))]
    run = training(lambda parameters, **_: torch.optim.SGD(others, lr=0.1))
    assert len(run.not_updated) == 4  # which the record names: it may hold copies
    run.engine.moves_weights = False
    with pytest.raises(UserError, match=r"^system\.parts: SGD has none of the parameters that it was given"):
        run._optimizer(run.module.parameters())


@pytest.mark.parametrize(
    ("engine", "make", "said"),
    [
        (Zero1, InBackward, "zero1: the parameter layers.0.weight has a hook, and DeepSpeed has taken"),
        (Zero2, InBackward, "zero2: the parameter layers.0.weight has a hook, and DeepSpeed has taken"),
        (FullyShard, None, "fsdp: the parameter layers.3.bias has a hook, and sharding puts another"),
    ],
)
def test_hooks_that_an_engine_would_lose_are_refused(
    engine: type[Engine], make: Make | None, said: str
) -> None:
    """Two processes, tried by hand, trained on without a word: as if there were no hook, or not at all."""
    module = Net(nn.Dropout(0.5))
    if make is None:
        cast(Tensor, module.layers[3].bias).register_hook(lambda gradient: gradient / 2)
    with pytest.raises(UserError, match=f"^system.parts: {said}"):
        engine(Ranks(), torch.device("cpu"), None, False).prepare(
            module, lambda parameters: (make or plain)(parameters, lr=0.1, weight_decay=0.0)
        )


@pytest.mark.parametrize(
    ("parts", "options", "names"),
    [
        ((), {}, "train.clip_norm=null"),
        ((), {"clip_norm": None, "accumulate": 2}, "train.accumulate"),
        ((Part.fp16,), {"clip_norm": None}, "fp16"),
    ],
)
def test_what_needs_the_whole_gradient_is_refused(
    parts: tuple[Part, ...], options: dict[str, Any], names: str
) -> None:
    with pytest.raises(UserError, match=names):
        list(training(InBackward, parts, **options).steps())


def test_without_a_limit_no_gradient_is_scaled() -> None:
    unlimited = list(training(None, clip_norm=None).steps())
    assert unlimited == list(training(None, clip_norm=1e30).steps())
    assert unlimited != list(training(None, clip_norm=1e-3).steps())


def test_parameters_that_the_optimizer_leaves_out_are_named() -> None:
    def matrices(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        return torch.optim.SGD([each for each in parameters if each.dim() == 2], lr=lr)

    assert training(matrices).not_updated == ["layers.0.bias", "layers.3.bias"]
    assert training(None).not_updated == []


def test_gradients_of_parameters_that_the_optimizer_leaves_out_are_those_of_one_step() -> None:
    """Else they would grow from step to step, and the limit on the norm would scale down all the others."""

    def last(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        return torch.optim.SGD([*parameters][-1:], lr=0.0)

    run = training(last, clip_norm=1.0)
    for _ in run.steps():
        assert all(each.grad is None for each in run.module.parameters())


def test_scaled_losses_are_refused_where_the_optimizer_leaves_parameters_out() -> None:
    """Their gradients would stay scaled up, and the limit on the norm would scale down all the others."""
    make: Make = lambda parameters, lr, weight_decay: torch.optim.SGD([*parameters][1:], lr=lr)  # noqa: E731
    assert training(make, (Part.bf16,)).not_updated == ["layers.0.weight"]
    with pytest.raises(
        UserError, match=r"^system\.parts: fp16 scales the loss, and SGD leaves out 1 parameter"
    ):
        training(make, (Part.fp16,))


def test_a_step_that_the_optimizer_has_compiled_runs_beside_the_counter() -> None:
    @torch.compile(backend="eager", fullgraph=True, dynamic=False)
    def halved(x: Tensor) -> Tensor:
        return x / 2

    x = torch.ones(4, 4)
    with FlopCounter() as counter:
        x @ x
        with counter.of_update():
            assert torch.equal(halved(x), x / 2)
            x @ x
        x @ x
    assert counter.total == 3 * 2 * 4**3


def test_bytes_of_a_tensor_of_tensors_are_theirs() -> None:
    pair = TwoTensor(torch.zeros(8), torch.zeros(8))
    assert bytes_of([pair, pair]) == 64
    weight = nn.Parameter(torch.ones(8))
    with SavedForBackward(nn.Module()) as ledger:
        (weight * pair).sum()
    assert ledger.metrics()["memory/saved_bytes"] == 64


def kept_in_hooks(net: nn.Module, **state: Any) -> Method:
    """An optimizer for each parameter, which hooks know and the one that the loop has does not."""
    inner = {each: torch.optim.AdamW([each], lr=1e-2) for each in net.parameters()}

    def update(parameter: Tensor) -> None:
        inner[parameter].step()
        inner[parameter].zero_grad()

    for parameter in inner:
        parameter.register_post_accumulate_grad_hook(update)
    return Method(optimizer=Idle, **state)


class Idle(torch.optim.SGD):
    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, lr=lr)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


class Averaged(torch.optim.AdamW):
    """Keeps a mean of the weights in a list, and a projection in an object, both beside its state."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, lr=lr, weight_decay=weight_decay)
        self.means = [each.detach().clone() for each in self.param_groups[0]["params"]]
        self.table = torch.arange(16.0)  # made anew by every start

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        for mean, weight in zip(self.means, self.param_groups[0]["params"], strict=True):
            mean.lerp_(weight, 0.1)


def held_after(run: Training, steps: int) -> tuple[float, int]:
    """Bytes of the optimizer on record, and those that a checkpoint would lose."""
    measured = {name: value for _, metrics in islice(run.steps(), steps) for name, value in metrics.items()}
    return measured["memory/optimizer_bytes"], state_of(run)["ranks"][0]["method"]["lost_bytes"]


def test_state_is_counted_wherever_a_method_keeps_it() -> None:
    weights = sum(each.nbytes for each in Net(nn.Dropout()).parameters())
    adam = 2 * weights + 4 * 4  # two moments, and the step of each parameter
    assert held_after(with_method(lambda _: Method()), 2) == (adam, 0)
    assert held_after(with_method(kept_in_hooks, clip_norm=None), 2) == (adam, adam)
    averaged = with_method(lambda _: Method(optimizer=Averaged))
    assert held_after(averaged, 2) == (adam + weights + 64, weights)


def test_a_run_whose_checkpoint_lacks_a_methods_state_does_not_go_on() -> None:
    before = with_method(kept_in_hooks, clip_norm=None)
    list(islice(before.steps(), 2))
    state = state_of(before)
    with pytest.raises(UserError, match=r"keeps 1064 bytes .* give its Method state= and restore="):
        restore(with_method(kept_in_hooks, clip_norm=None), state)


def test_a_method_that_gives_its_state_goes_on_bit_for_bit() -> None:
    def averaged(net: nn.Module) -> Method:
        made: list[Averaged] = []

        def optimizer(*arguments: Any, **options: Any) -> Averaged:
            made.append(Averaged(*arguments, **options))
            return made[0]

        def restore(means: list[Tensor]) -> None:
            made[0].means = means

        return Method(optimizer=optimizer, state=lambda: made[0].means, restore=restore)

    whole = with_method(averaged)
    expected = list(whole.steps())
    before = with_method(averaged)
    list(islice(before.steps(), 4))
    state = state_of(before)
    after = with_method(averaged)
    restore(after, state)
    assert list(after.steps()) == expected[4:]
    pairs = zip(after.engine.optimizer.means, whole.engine.optimizer.means, strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)


class Wraps(torch.optim.Optimizer):
    """Hands its steps to an optimizer with parameter groups of its own, or with the same ones."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, follows: Any, part: float) -> None:
        parameters = list(parameters)
        super().__init__(parameters, {"lr": lr})
        self.inner, self.follows, self.part = [torch.optim.SGD(parameters, lr=lr * part)], follows, part
        if follows == "shares":
            self.param_groups = self.inner[0].param_groups

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if self.follows == "sets":
            self.inner[0].param_groups[0]["lr"] = self.part * self.param_groups[0]["lr"]
        self.inner[0].step()


def wrapping(follows: str, part: float = 0.1) -> Make:
    return lambda parameters, lr, weight_decay: Wraps(parameters, lr, follows, part)


class SetsItsRate(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.param_groups[0]["lr"] *= 0.5
        super().step()


def test_an_optimizer_that_sets_its_own_rate_is_named() -> None:
    run = training(lambda parameters, lr, weight_decay: SetsItsRate(parameters, lr=lr), warmup_fraction=0.0)
    told = [line for _ in run.steps() for line in noticed(run)]
    said = "variant.apply: SetsItsRate sets its lr in step() itself, to 0.005, where train/lr, which is on record, is 0.01"
    assert len(told) == 1 and told[0].startswith(said) and run.progress.unscheduled == told[0]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_an_inner_optimizer_that_does_not_follow_the_schedule_is_named(schedule: str) -> None:
    run = training(wrapping("not"), schedule=Schedule(schedule), warmup_fraction=0.0, lr=0.5)
    told = [(step, line) for step, _ in run.steps() for line in noticed(run)]
    assert [step for step, _ in told] == [2]
    said = (
        "variant.apply: SGD inside of Wraps does not follow the schedule: its lr went from 0.05 to 0.05 while"
    )
    assert told[0][1].startswith(said) and run.progress.unscheduled == told[0][1]


@pytest.mark.parametrize("make", [wrapping("sets"), wrapping("shares", 1.0), plain, InBackward, None])
def test_optimizers_that_follow_the_schedule_are_not(make: Make | None) -> None:
    run = training(make, clip_norm=None)
    assert [line for _ in run.steps() for line in noticed(run)] == [] and not run.progress.unscheduled


def test_a_constant_rate_needs_no_schedule_to_be_followed() -> None:
    run = training(wrapping("not"), schedule=Schedule.constant, warmup_fraction=0.0)
    assert [line for _ in run.steps() for line in noticed(run)] == []


class StepsElsewhere(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


def test_optimizers_in_hooks_of_parameters_are_seen() -> None:
    """Each parameter has an optimizer of its own, which steps during backward."""

    def make(parameters: list[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        own = {parameter: torch.optim.SGD([parameter], lr=lr) for parameter in parameters}

        def update(parameter: Tensor) -> None:
            own[cast(nn.Parameter, parameter)].step()
            parameter.grad = None

        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(update)
        return StepsElsewhere(parameters, lr=lr)

    run = training(make, clip_norm=None)
    (line,) = [line for _ in run.steps() for line in noticed(run)]
    assert line.startswith("variant.apply: SGD inside of StepsElsewhere does not follow")


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_a_step_that_fp16_leaves_out_does_not_tell_of_an_inner_optimizer() -> None:
    run = training(wrapping("sets"), (Part.fp16,), clip_norm=None)
    run.engine.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**70, enabled=True)
    assert [line for _ in islice(run.steps(), 8) for line in noticed(run)] == []
