"""Which parts of a model torch.compile has taken over: no instrument may pass eager figures off as theirs."""

from torch import nn


def compiled_parts(module: nn.Module) -> list[nn.Module]:
    """The modules in `module` on which nn.Module.compile() was called."""
    return [part for part in module.modules() if part._compiled_call_impl is not None]
