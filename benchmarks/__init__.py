"""Benchmarks. Each module is a command, run from the root of the repository: `python -m benchmarks.speed.train --help`.

speed       throughput, memory and startup time, compared with PyTorch
fidelity    agreement with the original implementations
campaign    all measurements on an accelerator, in one command
regression  regression, risk regimes and Bayesian optimization
pytorch     the PyTorch implementations that the others compare with
"""
