#!/usr/bin/env bash
# Install the Debian packages that tests drive, where this user may; else say which tests are skipped for which.
set -uo pipefail
declare -A used_by=(
  [dcmtk]="tests that push with DCMTK's storescu and dcmsend"
  [chromium]="browser tests of the worklist"
  [docker-compose]="checks of docker-compose.yml"
  [orthanc]="tests against Orthanc as the PACS"
  [e2fsprogs]="tests on a full ext4"
)
declare -A program=(
  [dcmtk]=storescu
  [chromium]=chromium
  [docker-compose]=docker-compose
  [orthanc]=Orthanc
  [e2fsprogs]=mkfs.ext4
)
missing=()
for package in "${!program[@]}"; do
  command -v "${program[$package]}" >/dev/null || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Debian packages: ${missing[*]}"
  apt-get update -qq
  for package in "${missing[@]}"; do
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 ||
      echo "$package cannot be installed; skipped: ${used_by[$package]}"
  done
else
  for package in "${missing[@]}"; do
    echo "$package is missing and only root may install it; skipped: ${used_by[$package]}"
  done
fi
exit 0
