#!/usr/bin/env bash
# Installs Debian's Chromium, in which tests/test_page.py opens the pages, where there is none; as root on Debian. Elsewhere it
# says so, and these tests are skipped.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
  if command -v "$name" > /dev/null; then exit 0; fi
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  echo "chromium: not installed; it takes root and apt-get. The page's tests are skipped" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || true # an old list may do
apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core > /dev/null \
  || echo "chromium: could not be installed; the page's tests are skipped" >&2
