"""An exported model drops as the model does, in training and not in evaluation."""

import io

import pytest
import torch
import torch._dynamo.exc
from torch import Tensor, nn

from dropout_cases import (
    Module,
    X,
    each_module,
    net,
    step,
)
from pmexp.packed_dropout import (
    packed_bias_dropout_add,
    softmax_dropout_matmul,
)

pytestmark = [  # all in torch's own code, the last in torch.export.load of 2.10
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning"),
]

each_strictness = pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])


def export(model: nn.Module, strict: bool) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    return torch.export.export(model, (X,), dynamic_shapes=({0: batch},), strict=strict)


@each_strictness
@each_module
def test_an_exported_model_in_evaluation_has_no_dropout(module: Module, strict: bool) -> None:
    model = net(module).eval()
    program = export(model, strict)
    assert torch.equal(program.module()(X), model(X))
    operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert operators == {"aten.linear.default"}


@each_strictness
@each_module
def test_an_exported_model_in_training_drops_as_the_model_does(module: Module, strict: bool) -> None:
    model = net(module)
    program = export(model, strict)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    for exported in (program, program.run_decompositions(), torch.export.load(buffer)):
        run = exported.module()
        for x in (X, X.repeat(3, 1)):
            torch.manual_seed(3)
            expected = [model(x), model(x)]
            torch.manual_seed(3)
            assert torch.equal(run(x), expected[0])
            assert torch.equal(run(x), expected[1])
        assert not torch.equal(*expected)


@each_strictness
@each_module
def test_an_exported_model_in_training_trains(module: Module, strict: bool) -> None:
    """Its gradients are those of the model, as they are with nn.Dropout."""
    model = net(module)
    exported = export(model, strict).module()
    for mine, expected in zip(step(exported, X), step(model, X), strict=True):
        assert mine is not None and torch.equal(mine, expected)


class _SubLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.bias = nn.Linear(16, 16), nn.Linear(16, 4), nn.Parameter(torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(packed_bias_dropout_add(self.first(x), self.bias, x, 0.4))
        return y


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores, self.value, self.last = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unsqueeze(1).expand(-1, 8, -1)
        y: Tensor = self.last(softmax_dropout_matmul(self.scores(heads), self.value(heads), 0.4).mean(1))
        return y


@each_strictness
@pytest.mark.parametrize("composite", [_SubLayer, _Attention])
def test_an_exported_composite_trains(composite: type[nn.Module], strict: bool) -> None:
    """bias + dropout + add and recomputing attention give the gradients of the model, all the way down."""
    model = composite()
    exported = export(model, strict).module()
    for mine, expected in zip(step(exported, X), step(model, X), strict=True):
        assert mine is not None and torch.equal(mine, expected)
