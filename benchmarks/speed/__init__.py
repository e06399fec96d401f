"""Throughput, memory and startup time, compared with PyTorch."""
