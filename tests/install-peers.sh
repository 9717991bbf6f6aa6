#!/bin/sh
# Install what the tests talk to, where this machine is Debian's and lets us; otherwise say what will be skipped.
set -eu
# dcmqi wants an environment of its own: its companions ask for other versions than ours.
if ! command -v segimage2itkimage >/dev/null 2>&1 && [ ! -x .venv-dcmqi/bin/segimage2itkimage ] && [ -x .venv/bin/python ]; then
    .venv/bin/python -m venv .venv-dcmqi && .venv-dcmqi/bin/pip install --quiet --disable-pip-version-check "dcmqi>=1.5,<2" ||
        echo "dcmqi cannot be installed: tests that need it will be skipped"
fi

# OHIF as its authors built it; a real browser opens results in it.
ohif=3.13.2
if [ ! -e .venv-ohif/dist/index.html ]; then
    if command -v npm >/dev/null 2>&1; then
        folder=$(mktemp -d)
        (cd "$folder" && npm pack --silent "@ohif/app@$ohif" >/dev/null 2>&1 && tar -xzf ./*.tgz &&
            rm -rf package/dist/ort && find package/dist -name '*.map' -delete) &&
            rm -rf .venv-ohif && mv "$folder/package" .venv-ohif ||
            echo "OHIF cannot be fetched: tests in a real viewer will be skipped"
        rm -rf "$folder"
    else
        echo "no npm: OHIF cannot be fetched, and tests in a real viewer will be skipped"
    fi
fi

packages=""
lacks() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || packages="$packages $2"; }

lacks storescu dcmtk
lacks dciodvfy dicom3tools
lacks Orthanc orthanc
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || packages="$packages orthanc-dicomweb"
lacks promtool prometheus
lacks strace strace
lacks chromium chromium
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages="$packages postgresql"
[ -z "$packages" ] && exit 0

if [ "$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo="sudo -n"; else
    echo "not root and no sudo: tests that need$packages will be skipped"
    exit 0
fi
command -v apt-get >/dev/null 2>&1 || { echo "no apt-get: tests that need$packages will be skipped"; exit 0; }
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# shellcheck disable=SC2086  the list is meant to be split
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $packages >/dev/null
