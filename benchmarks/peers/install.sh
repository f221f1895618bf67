#!/usr/bin/env bash
# Makes the environment of one peer: benchmarks/peers/NAME/.venv, with exactly the packages of
# NAME/requirements.txt.
# Usage: benchmarks/peers/install.sh timm|torchfam|paddleclas|mindcv|keras|mxnet|opencv|litserve|fastapi
#        (PYTHON=python3.11 by default)
set -euo pipefail

name=${1:-}
folder=$(cd "$(dirname "$0")" && pwd)/$name
if [ -z "$name" ] || [ ! -f "$folder/requirements.txt" ]; then
  echo "usage: $0 timm|torchfam|paddleclas|mindcv|keras|mxnet|opencv|litserve|fastapi" >&2
  exit 2
fi

[ -x "$folder/.venv/bin/python" ] || "${PYTHON:-python3.11}" -m venv "$folder/.venv"
export PIP_DISABLE_PIP_VERSION_CHECK=1
install=("$folder/.venv/bin/python" -m pip install)

# With its own dependencies, which differ between the CPU and the CUDA builds of torch.
torch=$(grep '^torch==' "$folder/requirements.txt" || true)
[ -z "$torch" ] || "${install[@]}" "$torch"

# The lists are complete, so that pip need not follow dependencies: torchvision's would replace a
# CPU build of torch by a CUDA one, and mindcv's ask for packages that its models do not need.
"${install[@]}" --no-deps --requirement "$folder/requirements.txt"
