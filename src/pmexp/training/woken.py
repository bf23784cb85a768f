"""Finds frozen parts of somebody's own model that its builder left in eval mode, which training ends."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from pmexp.shown import first_five


def woken(module: nn.Module) -> str:
    """Puts `module` into training mode, and says which frozen parts this takes out of eval mode that do other
    things there: drop, or take statistics of the batch. Empty where there is none.

    Nothing is kept in eval mode on purpose where all of it is, as pretrained models are at first.
    """
    if not module.training:
        return ""
    resting = {name: part for name, part in module.named_modules() if not part.training and _is_frozen(part)}
    module.train()
    names = [name for name, part in resting.items() if part.training and _acts_otherwise(part)]
    outermost = [name for name in names if name.rpartition(".")[0] not in resting]
    if not outermost:
        return ""
    return (
        f"model.builder: frozen parts that it left in eval mode are in training mode in each step: "
        f"{first_five(outermost)}; override train() where they shall stay"
    )


def _is_frozen(part: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in part.parameters())


def _acts_otherwise(part: nn.Module) -> bool:
    return any(isinstance(each, _DropoutNd | _NormBase | nn.RNNBase) for each in part.modules())
