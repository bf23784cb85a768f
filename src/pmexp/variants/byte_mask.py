"""Dropout that keeps one Boolean byte an element, as nn.Dropout does on CUDA, on every device."""

import torch
from torch import Tensor, nn


class ByteMaskDropout(nn.Dropout):
    """nn.Dropout through torch.native_dropout, whose backward keeps a Boolean mask."""

    dropout_may_be_replaced = True  # see exchange.py

    def forward(self, input: Tensor) -> Tensor:
        return self.drop(input, self.p, self.training, self.inplace)

    def drop(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """The signature of F.dropout, for functional call sites. `inplace` writes the result into `input`."""
        if not training or p == 0.0:
            return input
        output: Tensor = torch.native_dropout(input, p, True)[0]
        return input.copy_(output) if inplace else output
