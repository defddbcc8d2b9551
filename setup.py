"""Put the presets into the package; pyproject.toml says everything else."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["unit*"]), "unit.presets"], package_dir={"unit.presets": "configs"})
