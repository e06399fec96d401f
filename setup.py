"""Package `configs/` as `anchor_jax/configs/`, so that an installed `anchor-jax train --config NAME` finds it.

Everything else is declared in pyproject.toml, which cannot say this together with a search for packages.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["anchor_jax", "anchor_jax.*"]), "anchor_jax.configs"],
    package_dir={"anchor_jax.configs": "configs"},
)
