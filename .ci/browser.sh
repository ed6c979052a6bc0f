#!/bin/bash
# Chromium, in which `make test-all` opens the report page, from the distribution's packages.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/packages.sh

has_browser() { command -v chromium >/dev/null || command -v chromium-browser >/dev/null; }

has_browser || { install_packages chromium && has_browser; } ||
  fail "make test-all opens the report page in Chromium; run: apt-get install -y chromium"
