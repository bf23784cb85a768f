"""Compiles each layer by torch.compile and inductor: fused kernels, and a graph that chooses what to save.

A layer is one graph, or the run fails: nothing falls back to eager mode unseen. Layers are compiled in place
at their first call, when every part of the stack has changed them, in whatever order the parts are listed;
names and state_dict stay, and equal layers share a graph. In a graph torch's own dropout draws by inductor's
generator: other masks than in eager mode, a sample as with another seed.
"""

from collections import Counter
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import nn
from torch._subclasses import FakeTensor

from pmexp.errors import UserError
from pmexp.measure.precision import compiled_parts
from pmexp.systems.base import SystemPart
from pmexp.systems.layers import layers_of

BACKEND = "inductor"


class Compile(SystemPart):
    """Compiles each layer by torch.compile."""

    def prepare(self, module: nn.Module) -> None:
        """Has each layer compiled at its first call.

        Raises UserError for a model without layers or whose layers are no graph, and in a simulation.
        """
        from transformers.models.longformer.modeling_longformer import LongformerLayer  # slow: here alone

        layers = layers_of(module, "compile")
        if any(isinstance(parameter, FakeTensor) for parameter in module.parameters()):
            raise UserError(
                "system.parts: compile cannot be simulated, since memory is what the compiler makes of it; "
                "leave it out, or set method=measure"
            )
        if any(isinstance(layer, LongformerLayer) for layer in layers):
            raise UserError(
                f"system.parts: compile cannot trace the layers of {type(module).__name__}, whose attention "
                "looks at its mask's values; leave it out"
            )
        for layer in layers:
            layer.compile(backend=BACKEND, fullgraph=True)

    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        """Returns a context with settings for the tracer, which works at a first call.

        The side effects in a checkpointed layer are those of the dropout routes, which undo them at its end.
        """
        # The import takes a second, which runs that compile nothing shall not pay.
        import torch._dynamo.config as settings

        patch: Any = settings.patch
        return cast(
            AbstractContextManager[object],
            patch(fail_on_recompile_limit_hit=True, skip_fwd_side_effects_in_bwd_under_checkpoint=True),
        )

    def record(self, module: nn.Module) -> dict[str, str]:
        kinds = Counter(type(part).__name__ for part in compiled_parts(module))
        layers = " and ".join(f"{count} {kind}" for kind, count in kinds.items())
        return {
            "compile": f"{layers} by {BACKEND}, a graph a layer",
            "ledger": "what the compiled graphs save; masks cannot be told apart in it",
        }
