"""iceoryx2: samples in shared memory, loaned, written, sent and read where they lie."""

from __future__ import annotations

import ctypes  # noqa: TID251 - what iceoryx2 gives and takes
import itertools
import os
from collections.abc import Callable
from typing import Any

import iceoryx2

from multikernel.tools.bench.channels import CAPACITY, Receive, Send

_numbers = itertools.count()
iceoryx2.set_log_level(iceoryx2.LogLevel.Error)


class _Service:
    """A publisher and a subscriber of slices of bytes; nothing is overwritten that was not read."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._samples = max(2, min(CAPACITY // size, 4096))
        self._name = f"multikernel-bench/{os.getpid()}/{next(_numbers)}"
        self._opened: list[Any] = []  # of the process that opened them, in order

    def _service(self) -> Any:
        node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        service = (
            node.service_builder(iceoryx2.ServiceName.new(self._name))
            .publish_subscribe(iceoryx2.Slice[ctypes.c_uint8])
            .enable_safe_overflow(False)
            .subscriber_max_buffer_size(self._samples)
            .max_publishers(1)
            .max_subscribers(1)
            .open_or_create()
        )
        self._opened += [node, service]
        return service

    def _publisher(self) -> Any:
        service = self._service()
        publisher = (
            service.publisher_builder()
            .initial_max_slice_len(self._size)
            .backpressure_strategy(iceoryx2.BackpressureStrategy.RetryUntilDelivered)
            .create()
        )
        self._opened.append(publisher)
        # What is sent before the other side is there goes nowhere.
        _await(lambda: service.dynamic_config.number_of_subscribers)
        publisher.update_connections()
        return publisher

    def _subscriber(self) -> Any:
        service = self._service()
        subscriber = service.subscriber_builder().buffer_size(self._samples).create()
        self._opened.append(subscriber)
        _await(lambda: service.dynamic_config.number_of_publishers)
        return subscriber

    def close(self) -> None:
        while self._opened:
            self._opened.pop().delete() if hasattr(self._opened[-1], "delete") else self._opened.pop()


def _await(there: Callable[[], int]) -> None:
    while not there():
        os.sched_yield()


class Iceoryx(_Service):
    """Bytes, copied in and out; the receiver looks until something is there."""

    def sender(self) -> Send:
        loan, move = self._publisher().loan_slice_uninit, ctypes.memmove

        def send(message: bytes) -> None:
            delivered = 0
            while not delivered:  # it may give up on a full subscriber, whatever the strategy says
                sample = loan(len(message))
                move(sample.payload_ptr, message, len(message))
                delivered = sample.assume_init().send()

        return send

    def receiver(self) -> Receive:
        receive, size = self._subscriber().receive, self._size

        def receive_one() -> bytes:
            while (sample := receive()) is None:
                continue
            return ctypes.string_at(sample.payload_ptr, size)

        return receive_one


class WakingIceoryx(Iceoryx):
    """Bytes, copied in and out; the receiver sleeps until it is notified of something."""

    def _events(self) -> Any:
        node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        events = node.service_builder(iceoryx2.ServiceName.new(self._name)).event().open_or_create()
        self._opened += [node, events]
        return events

    def sender(self) -> Send:
        send = super().sender()
        notifier = self._events().notifier_builder().create()
        self._opened.append(notifier)
        notify = notifier.notify

        def send_and_notify(message: bytes) -> None:
            send(message)
            notify()

        return send_and_notify

    def receiver(self) -> Receive:
        receive, size = self._subscriber().receive, self._size
        listener = self._events().listener_builder().create()
        self._opened.append(listener)
        wait = listener.blocking_wait

        def receive_one() -> bytes:
            while (sample := receive()) is None:
                wait()
            return ctypes.string_at(sample.payload_ptr, size)

        return receive_one


class InPlaceIceoryx(_Service):
    """Samples that the sender fills and the receiver reads where they lie. See `rows.payloads`."""

    def place_sender(self) -> Callable[[Callable[[memoryview], object]], None]:
        loan, size = self._publisher().loan_slice_uninit, self._size

        def send(fill: Callable[[memoryview], object]) -> None:
            delivered = 0
            while not delivered:  # as above
                sample = loan(size)
                fill(sample.payload().as_memory_view())
                delivered = sample.assume_init().send()

        return send

    def place_receiver(self) -> Callable[[Callable[[memoryview], Any]], Any]:
        receive = self._subscriber().receive

        def receive_one(use: Callable[[memoryview], Any]) -> Any:
            while (sample := receive()) is None:
                continue
            return use(sample.payload().as_memory_view())

        return receive_one
