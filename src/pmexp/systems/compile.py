"""torch.compile of each layer: one small graph that all layers of a kind share, without breaks."""

from torch import nn

from pmexp.systems.base import SystemPart
from pmexp.systems.layers import layers_of


class Compile(SystemPart):
    def prepare(self, module: nn.Module) -> None:
        for layer in layers_of(module, "compile"):
            layer.compile(fullgraph=True, dynamic=False)
