#!/usr/bin/env bash
# Does what the command does in whose place it stands; the first that matches FAIL_AT, by its
# arguments and what it reads, fails afterwards.
name=${0##*/}
input=$(cat && printf .)
printf %s "${input%.}" | PATH=${PATH#*:} "$name" "$@"
status=$?
if [ ! -e /tmp/failed ] && [[ "$name $* $input" =~ $FAIL_AT ]]; then
    touch /tmp/failed
    exit 1
fi
exit $status
