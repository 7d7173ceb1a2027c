"""Asks the fork server for a process in the place of a new interpreter, and is its stand-in: signals, exit code."""

import json
import os
import signal
import socket
import sys

connection = socket.socket(socket.AF_UNIX)
connection.connect(os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "socket"))
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: connection.send(bytes([number])))
request = {"arguments": sys.argv[1:], "directory": os.getcwd(), "environment": dict(os.environ)}
text = json.dumps(request).encode() + b"\n"
sent = socket.send_fds(connection, [text], [0, 1, 2])
connection.sendall(text[sent:])
with connection.makefile() as answers:
    answers.readline()
    end = answers.readline()
code = json.loads(end)["code"] if end else 1
if code < 0:  # by a signal: so is this process
    signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), -code)
sys.exit(code)
