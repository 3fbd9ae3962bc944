"""The pages that watchers read, in one place: who writes them stands in each module's first line."""

from __future__ import annotations

from .console_ring import Console, ConsoleView, Line, as_text
from .machine_page import MachinePage, MachineView
from .records import PHASES, STATES, Counters, End, ImageRecord, InstanceRecord, LinkStatus, MachineRecord, Status
from .status_page import StatusPage, StatusView

__all__ = [
    "PHASES",
    "STATES",
    "Console",
    "ConsoleView",
    "Counters",
    "End",
    "ImageRecord",
    "InstanceRecord",
    "Line",
    "LinkStatus",
    "MachinePage",
    "MachineRecord",
    "MachineView",
    "Status",
    "StatusPage",
    "StatusView",
    "as_text",
]
