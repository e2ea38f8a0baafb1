"""What pyproject.toml cannot say: the library and the scripts lie in one folder, and are two packages."""

from setuptools import find_namespace_packages, find_packages, setup

SCRIPTS = "instruction_modelling_scripts"

setup(
    packages=[*find_packages("src"), *find_namespace_packages(".", include=["eval", "eval.*"]), SCRIPTS],
    package_dir={"instruction_modelling": "src/instruction_modelling", "eval": "eval", SCRIPTS: "src"},
)
