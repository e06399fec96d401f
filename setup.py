"""Package `configs/` as `anchor_jax/configs/`, so that the installed `anchor-jax train --config cifar10` finds it.

Everything else is in pyproject.toml, which cannot combine a mapped folder with automatic discovery of packages.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["anchor_jax", "anchor_jax.*"]), "anchor_jax.configs"],
    package_dir={"anchor_jax.configs": "configs"},
)
