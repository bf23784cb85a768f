"""``python -m pmexp.packed_dropout`` says what serves the method here."""

import torch

from pmexp.packed_dropout import backend

for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
    print(f"packed dropout on {device}: {backend(torch.device(device))}")
