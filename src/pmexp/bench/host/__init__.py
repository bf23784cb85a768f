"""Measures the host's part of steps on CUDA where no device is: a library stands for the device.

torch's build for CUDA, Triton and the native calls run as they do beside a device, up to the functions of the
CUDA runtime, of its driver and of cuBLAS, which stand_in.c has in place of NVIDIA's. What the device would
compute is not computed.
"""
