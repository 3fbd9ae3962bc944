"""What child processes of these tests do; by name, so that spawn and forkserver find it."""

from __future__ import annotations

import os
import signal


def echo(connection):
    """Send back what comes until the other end is gone."""
    try:
        while True:
            connection.send(connection.recv())
    except EOFError:
        connection.close()


def say(connection, value):
    connection.send(value)
    connection.close()


def hold(connection, said):
    """Claim an end, say so, and wait to be killed."""
    connection.poll()
    said.send("claimed")
    signal.pause()


def use_both(here, there):
    there.send("from the child")
    here.send(there.readable)


def send_until_killed(connection):
    i = 0
    while True:
        connection.send((i, bytes(i % 70_000)))
        i += 1


def produce(queue, me, count):
    for i in range(count):
        queue.put((me, i))


def produce_until_killed(queue, me):
    i = 0
    while True:
        queue.put((me, i))
        i += 1


def consume(queue, out):
    """Hand on what comes until a None does."""
    while (value := queue.get()) is not None:
        out.put(value)


def consume_until_killed(queue, out):
    while True:
        out.send(queue.get())


def answer(queue, out):
    for value in iter(queue.get, None):
        out.put(value * 2)


def get_one(queue, out):
    out.put(queue.get())


def put_all(queue, values):
    for value in values:
        queue.put(value)


def put_and_end_at_once(queue, count):
    """Ends without any of what Python does at exit."""
    for i in range(count):
        queue.put(i)
    os._exit(0)


def put_without_waiting(queue, count):
    queue.cancel_join_thread()
    for i in range(count):
        queue.put(i)


def put_close_and_join(queue, count):
    for i in range(count):
        queue.put(i)
    queue.close()
    queue.join_thread()
