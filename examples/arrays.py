"""Pictures from one process to another, without copying them.

Shows: a ring of numpy arrays between two processes; the sender draws each picture where the receiver will look at it
(`reserve`), and the receiver looks at it there (`peek`).

Run it:     python examples/arrays.py
Try:        python examples/arrays.py 100000
            Leave out one `del picture`: the block says who still holds the memory, and nothing dangles.
"""

from __future__ import annotations

import multiprocessing
import sys
import time

import numpy as np

import multikernel as mk

HEIGHT, WIDTH = 240, 320


def spot(number: int) -> tuple[int, int]:
    """Where the bright spot of picture `number` is."""
    return number * 7 % HEIGHT, number * 13 % WIDTH


def camera(sender: mk.Sender, pictures: int) -> None:
    """The other process: draws pictures, right into the ring."""
    with sender:
        for number in range(pictures):
            with sender.reserve(1) as room:
                picture = np.frombuffer(room, np.uint8).reshape(HEIGHT, WIDTH)
                picture.fill(number % 200)
                picture[spot(number)] = 255
                del picture  # the room is given back at the end of the block, so nobody may look at it after that


def watch(receiver: mk.Receiver, pictures: int) -> int:
    """Find the spot in each picture, where it lies. Returns how many were where they should be."""
    right = 0
    for number in range(pictures):
        with receiver.peek(timeout=10) as seen:
            picture = np.frombuffer(seen, np.uint8).reshape(HEIGHT, WIDTH)
            rest_is_right = np.count_nonzero(picture == number % 200) == picture.size - 1
            right += bool(picture[spot(number)] == 255 and rest_is_right)
            del picture
    return right


def main(pictures: int) -> int:
    """Returns the exit status."""
    ring = mk.Ring("4M", dtype=np.uint8, shape=(HEIGHT, WIDTH))
    process = multiprocessing.get_context("spawn").Process(target=camera, args=(ring.sender(), pictures))
    process.start()  # the sender has gone to the child: it belongs to whoever sends first
    with ring.receiver() as receiver:
        began = time.perf_counter()
        right = watch(receiver, pictures)
        seconds = time.perf_counter() - began
        try:
            receiver.recv(timeout=10)
        except mk.Closed:  # the camera has closed its end, and all that it sent was seen
            print(f"{right} of {pictures} pictures were right, {pictures / seconds:,.0f} a second")
    process.join()
    return 0 if right == pictures and process.exitcode == 0 else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000))
