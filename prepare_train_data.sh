#!/bin/sh
# The training sets of the paper and of the Tülu mixtures, downloaded and converted. Without a name, the paper's seven.
#   sh prepare_train_data.sh [SET...] [--list] [--help]
set -eu
cd "$(dirname "$0")"
python=.venv/bin/python
[ -x "$python" ] || python=$(command -v python3 || true)
# Any environment will do in which the project is installed.
if [ -z "$python" ] || ! "$python" -c 'import instruction_modelling, httpx' 2>/dev/null; then
    echo "error: there is no environment yet; make it with: bash scripts/setup.sh" >&2
    exit 2
fi
exec "$python" src/prepare_data.py "$@"
