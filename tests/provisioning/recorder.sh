#!/usr/bin/env bash
# In place of dnf and rpm: writes down what it is called with. What "dnf install" was given is there
# from then on; of the server's package there is what everything else needs.
call="${0##*/} $*"
echo "$call" >>/tmp/calls
case $call in
rpm\ -q\ *) grep -q "^dnf install .*${*: -1}" /tmp/calls ;;
rpm\ -qa*) sed -n 's/^dnf install -y -q //p' /tmp/calls | tr ' ' '\n' | sed 's/^/package:/' ;;
dnf*\ list\ *) exit "$NO_PACKAGE" ;;
dnf\ install*postgresql17-server*)
    install -d -o postgres -g postgres /var/lib/pgsql/17
    mkdir -p /usr/pgsql-17 && ln -s /usr/lib/postgresql/17/bin /usr/pgsql-17/bin
    ;;
dnf\ remove*postgresql17-server*) rm -r /usr/pgsql-17 /var/lib/pgsql ;;
esac
