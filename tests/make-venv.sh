#!/bin/sh
# Make a virtual environment, with the help of Debian's python3-venv where it is not there yet.
set -eu
python=$1 venv=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "overread needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11" >&2
    exit 1
}
"$python" -m venv "$venv" 2>/dev/null && exit 0

rm -rf "$venv"
if [ "$(id -u)" = 0 ]; then sudo=; else sudo="sudo -n"; fi
$sudo apt-get install -y -qq python3-venv || {
    echo "Python's venv module is missing; install it with: apt-get install python3-venv" >&2
    exit 1
}
exec "$python" -m venv "$venv"
