#!/usr/bin/env bash
# The users service on what install.sh has made: as the service's user, with its environment; then
# one user is created and the list asked for.
set -euo pipefail
set -a
# shellcheck disable=SC1091 # it is on the machine
. /etc/penstock/users.env
set +a
python=/opt/penstock/users/bin/python
cd /

runuser -u users_service -- $python -c '
import asyncio
from penstock import Database
from penstock.demo.users import upgrade

asyncio.run(upgrade(Database.from_environment()))'
runuser -u users_service -- $python -m uvicorn --log-level error \
    --factory penstock.demo.users:create_app &
$python -c '
import json, time, urllib.error, urllib.request

def ask(path, body=None):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request("http://127.0.0.1:8000" + path, body, headers)
    with urllib.request.urlopen(request) as answer:
        return answer.status, json.load(answer)

for _ in range(600):
    try:
        ask("/health/ready")
        break
    except urllib.error.URLError:
        time.sleep(0.05)
user = {"email": "anna@example.org", "username": "anna", "password": "long enough"}
status, made = ask("/users/", json.dumps(user).encode())
print(status, made["id"])
print([each["username"] for each in ask("/users/")[1]])'
kill %1
