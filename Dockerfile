# The environment of scripts/setup.sh in an image, from the same requirements.
#   docker build --target cpu -t instruction-modelling:cpu .
#   docker build --target cuda -t instruction-modelling:cuda .
#   docker run --rm -it --shm-size 8g -v "$PWD/results:/project/results" instruction-modelling:cpu bash scripts/quickstart.sh --fast
#   docker run --rm -it --gpus all --shm-size 16g -v "$PWD/results:/project/results" instruction-modelling:cuda
# --shm-size: processes of one run meet in shared memory. Model-written code (HumanEval) runs in bubblewrap only where the container
# may make namespaces: docs/sandbox.md says by which options.

FROM debian:12-slim AS system
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates python3 python3-dev python3-pip python3-venv gcc g++ git bubblewrap procps \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /project

# What the packages follow from, alone, so that a change of the code does not install them again.
FROM system AS packages
COPY requirements.txt requirements-eval.txt pyproject.toml ./
# TORCH: which build, where pip's own choice is not wanted, as TORCH="torch==2.13.0+cpu --index-url ADDRESS".
ARG TORCH=""
# Debian 12's pip builds a package that has only a setup.py in the old way, which fails today.
ENV PIP_USE_PEP517=1
RUN python3 -m venv .venv \
    && .venv/bin/python -m pip install --no-cache-dir ${TORCH:-$(grep -E '^torch==' requirements.txt)} \
    && .venv/bin/python -m pip install --no-cache-dir -r requirements.txt -r requirements-eval.txt

FROM packages AS cpu
COPY . .
# Installs the project itself; the packages are there already.
RUN bash scripts/setup.sh --no_model --no_system_packages
CMD ["bash"]

FROM packages AS cuda
COPY requirements-gpu.txt ./
RUN .venv/bin/python -m pip install --no-cache-dir -r requirements-gpu.txt
COPY . .
RUN bash scripts/setup.sh --no_model --no_system_packages
CMD ["bash"]
