"""Builds a model of transformers and takes one step, with nothing around it: the rival of level=start.

It is executed by its path, in a process of its own: ``python bare_start.py SIZES.json``. Prints the time at
which the step has ended, in seconds since 1970, and the number of the model's parameters.
"""

import json
import sys
import time

import torch
from transformers import ViTConfig, ViTForImageClassification


def main(file: str) -> None:
    with open(file, encoding="utf-8") as stream:
        told = json.load(stream)
    torch.manual_seed(0)
    sizes = ViTConfig(**told["architecture"], num_labels=told["classes"])
    model = ViTForImageClassification(sizes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    side, channels = sizes.image_size, sizes.num_channels
    pictures = torch.rand(told["batch"], channels, side, side)
    labels = torch.arange(told["batch"]) % told["classes"]
    model(pixel_values=pictures, labels=labels).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    print(time.time(), sum(parameter.numel() for parameter in model.parameters()))


if __name__ == "__main__":
    main(sys.argv[1])
