#!/bin/sh
# AlpaGasus (dolly_3k, chatgpt_9k, claude_t45) from its own repository, downloaded and converted.
#   sh prepare_alpagasus_data.sh [SET...] [--list] [--help]
set -eu
cd "$(dirname "$0")"
python=.venv/bin/python
[ -x "$python" ] || python=$(command -v python3 || true)
# Any environment will do in which the project is installed.
if [ -z "$python" ] || ! "$python" -c 'import instruction_modelling, httpx' 2>/dev/null; then
    echo "error: there is no environment yet; make it with: bash scripts/setup.sh" >&2
    exit 2
fi
exec "$python" src/prepare_data.py --collection alpagasus "$@"
