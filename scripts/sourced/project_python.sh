# shellcheck shell=sh
# Sourced by the prepare_*.sh scripts in the project's folder: `python` is then a Python in which the project is installed.
python=.venv/bin/python
[ -x "$python" ] || python=$(command -v python3 || true)
# Any environment will do in which the project is installed.
if [ -z "$python" ] || ! "$python" -c 'import instruction_modelling, httpx' 2>/dev/null; then
    echo "error: there is no environment yet; make it with: bash scripts/setup.sh" >&2
    exit 2
fi
