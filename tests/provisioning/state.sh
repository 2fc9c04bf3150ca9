#!/usr/bin/env bash
# What is on a machine: files by type, mode and owner, below /etc by content, too; the packages; the
# clusters. Without what runs, caches, logs, what package managers keep, and data.
managed='/(proc|dev|run|tmp|source|wheels|root/\.cache|var/(cache|log|backups)|var/lib/(apt|dpkg|systemd))'
passing='.*(/__pycache__|-|/ld\.so\.cache|/resolv\.conf|/(main|data)/(base|global|postmaster.*|pg_[a-z]+))'
files() { find "$1" -xdev -regextype egrep -regex "$managed" -prune -o -regex "$passing" -prune -o "${@:2}"; }

files / -printf '%p %y %m %u:%g %l\n' | sort
files /etc -type f -exec sha256sum {} + | sort -k 2
dpkg-query -W -f '${Package} ${Status}\n'
! command -v pg_lsclusters >/dev/null || pg_lsclusters
