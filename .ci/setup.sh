#!/bin/bash
# Set-up on Debian or Ubuntu: .venv with the locked packages and this project, and the OpenGL
# libraries that headless rendering needs. Run by `make setup`; quick when nothing is left to do.
#
# PYTHON=/path/to/python chooses the interpreter; else the first of python3.11, python3.12, python3
# that is Python 3.11 or 3.12. TRAIN_WORDS, what `make train` will pass to dreamer.run, is checked
# before the packages are installed, because that takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
STAMP=$VENV/.dreamer-setup
GL_STAMP=$VENV/.dreamer-opengl
GL_PACKAGES="libegl1 libgl1 libopengl0 libgl1-mesa-dri"

. .ci/packages.sh

[[ $OSTYPE == linux* ]] || fail "Linux is needed, but this is $OSTYPE;" \
  "on Windows use WSL 2, and on macOS a Linux container"

supported() {
  "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null
}

find_python() {
  if [ -n "${PYTHON:-}" ]; then
    supported "$PYTHON" || fail "PYTHON=$PYTHON is not Python 3.11 or 3.12"
    echo "$PYTHON"
    return
  fi
  local name
  for name in python3.11 python3.12 python3; do
    if supported "$name"; then
      echo "$name"
      return
    fi
  done
  fail "Python 3.11 or 3.12 is needed and none was found; on Debian 12: apt-get install python3.11-venv," \
    "on Ubuntu 24.04: apt-get install python3.12-venv; elsewhere: make setup PYTHON=/path/to/python3.11"
}

# make_venv PYTHON : a virtual environment; without ensurepip the interpreter's own pip serves it.
make_venv() {
  local version package
  version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  package=python$version-venv
  if ! "$1" -c 'import ensurepip, venv' 2>/dev/null && ! "$1" -c 'import pip, venv' 2>/dev/null; then
    install_packages "$package" || fail "Python's venv module is missing; run: apt-get install $package"
  fi
  say "making $VENV with Python $version"
  if "$1" -c 'import ensurepip' 2>/dev/null; then
    "$1" -m venv --clear $VENV
  else
    "$1" -m venv --clear --without-pip $VENV
  fi
}

venv_pip() {
  if $VENV/bin/python -c 'import pip' 2>/dev/null; then
    $VENV/bin/python -m pip --disable-pip-version-check "$@" </dev/null
  else
    "$python" -m pip --disable-pip-version-check --python $VENV/bin/python "$@" </dev/null
  fi
}

# check_words WORD... : reads them as dreamer.run does, which needs one small package.
check_words() {
  if ! $VENV/bin/python -c 'import ruamel.yaml' 2>/dev/null; then
    sed -n '/^ruamel-yaml==/,/[^\\]$/p' $lock >$VENV/first.lock
    venv_pip install --quiet --require-hashes --only-binary :all: -r $VENV/first.lock
  fi
  $VENV/bin/python -c 'from dreamer.config.command_line import CommandLine, run_main
run_main(lambda words: CommandLine("make train", "").parse(words).config() and None)' "$@"
}

# Succeeds where the project finds an OpenGL that renders, by the probe that its runs use.
opengl_works() {
  local backend
  backend=$($VENV/bin/python -c 'from dreamer.envs.rendering import backend_variables
print(backend_variables()["MUJOCO_GL"])' 2>/dev/null) && say "headless OpenGL works: $backend"
}

if ! supported $VENV/bin/python; then
  python=$(find_python)
  make_venv "$python"
fi
python=${python:-$(find_python)}

lock=requirements.lock
size="1.1 GB to download, 3.7 GB on the disk"
if sh .ci/has_gpu.sh; then
  lock=requirements-gpu.lock
  size="with CUDA's libraries for the GPU: 3.9 GB to download, 8 GB on the disk"
fi
wanted=$(cat $lock setup.py pyproject.toml | sha256sum | cut -d' ' -f1)-$PWD
if [ "$(cat $STAMP 2>/dev/null)" != "$wanted" ]; then
  rm -f $STAMP $GL_STAMP
  eval "check_words ${TRAIN_WORDS:-}"
  say "installing the packages of $lock ($size; a few minutes the first time)"
  venv_pip install --quiet --require-hashes --only-binary :all: -r $lock
  venv_pip install --quiet --no-deps --no-build-isolation -e .
  echo "$wanted" >$STAMP
fi

# Who sets MUJOCO_GL has chosen (MUJOCO_GL=off: no images): nothing to look for or to install.
if [ ! -e $GL_STAMP ] && [ -z "${MUJOCO_GL:-}" ]; then
  # shellcheck disable=SC2086
  opengl_works || { install_packages $GL_PACKAGES && opengl_works; } ||
    fail "images need OpenGL libraries; run: apt-get install -y $GL_PACKAGES" \
      "(or set MUJOCO_GL=off and train without images: --configs dmc_proprio)"
  touch $GL_STAMP
fi
