"""Defines a dropout that keeps one Boolean byte an element on every device, as nn.Dropout does on CUDA."""

import torch
from torch import Tensor, nn


class ByteMaskDropout(nn.Dropout):
    """nn.Dropout through torch.native_dropout, whose backward keeps a Boolean mask.

    In 16 bits on the CPU torch rounds the factor 1 / (1 - p) to the dtype in forward, and not in backward.
    """

    dropout_may_be_replaced = True  # packed_dropout/exchange.py reads it

    def forward(self, input: Tensor) -> Tensor:
        return self.drop(input, self.p, self.training, self.inplace)

    def drop(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """Drops with the signature of F.dropout, for functional call sites; `inplace` writes into `input`."""
        if not training or p == 0.0:
            return input
        output: Tensor = torch.native_dropout(input, p, True)[0]
        return input.copy_(output) if inplace else output
