"""Exchanges one dropout module for another: says which may go, and what moves along."""

from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from pmexp.packed_dropout.routed_modules import original_class

MAY_BE_REPLACED = (
    "dropout_may_be_replaced"  # a class or module that has it set is nn.Dropout to whoever uses it
)
_SAYS_NOTHING = {
    *("__module__", "__doc__", "__qualname__", "__annotations__", "__parameters__", "extra_repr"),
    *("__firstlineno__", "__static_attributes__"),  # Python 3.13 adds them
}
_BOUND_TO_THE_OLD = ("_compiled_call_impl", "_modules")


def why_it_stays(dropout: nn.Dropout) -> str | None:
    """Returns why an nn.Dropout may not be exchanged, or None where it may.

    It may if its class is nn.Dropout, or adds nothing to it but a name, or says `dropout_may_be_replaced`.
    """
    if "forward" in vars(dropout):
        return "its forward was replaced"
    cls = original_class(dropout)
    if parametrize.is_parametrized(dropout):
        cls = parametrize.type_before_parametrizations(dropout)
    for base in [] if MAY_BE_REPLACED in vars(dropout) else cls.__mro__:
        if base is nn.Dropout or vars(base).get(MAY_BE_REPLACED):
            break
        if not set(vars(base)) <= _SAYS_NOTHING:
            return (
                f"{cls.__name__} is a dropout of its own; with `{MAY_BE_REPLACED} = True` in its class it is "
                "taken for nn.Dropout"
            )
    return None


def exchanged(old: nn.Dropout, dropout: type[nn.Dropout], options: dict[str, Any]) -> nn.Dropout:
    """Returns a `dropout` of the rate of `old`, with its mode, hooks, buffers, parameters and attributes.

    Attributes that the new class sets itself are kept as well.
    """
    new = dropout(old.p, old.inplace, **options)
    own = set(vars(new)) | _set_by_its_class(old)
    for name, value in vars(old).items():
        if (name in vars(_BARE) or name not in own) and name not in _BOUND_TO_THE_OLD:
            made = vars(new).get(name)  # by the class of the new one: its tensors and hooks stay as well
            if isinstance(made, dict):
                value.update({**made, **value})
            elif isinstance(made, set):
                value.update(made)
            vars(new)[name] = value  # the same dictionaries, since a hook's handle removes the hook from them
    for name, child in old._modules.items():
        if name != "parametrizations":
            new._modules[name] = child
    if parametrize.is_parametrized(old):
        parametrize.transfer_parametrizations_and_params(old, new)
    setattr(new, MAY_BE_REPLACED, True)
    return new


_BARE = nn.Module()


def _set_by_its_class(module: nn.Dropout) -> set[str]:
    """Returns the attributes that its class sets itself; all of them where a fresh module cannot be made."""
    try:
        return set(vars(original_class(module)(module.p)))
    except Exception:
        return set(vars(module))
