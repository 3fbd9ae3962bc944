"""The pages that watchers read, in one place: who writes them stands in each module's first line."""

from __future__ import annotations

from multikernel._core import lib

from .console_ring import Console, ConsoleView, Line, as_text
from .machine_page import MachinePage, MachineView
from .records import (
    PHASES,
    STATES,
    Counters,
    End,
    ImageRecord,
    InstanceRecord,
    LinkStatus,
    MachineRecord,
    Status,
    Supervised,
)
from .status_page import StatusPage, StatusView

ABI_VERSION: int = lib.MK_ABI_VERSION
"""Of every page that is read here: others are refused."""

CLIENT_ID: int = lib.MK_CLIENT_ID
"""The first id of a client; smaller ones are those of instances, 0 is the host's."""

__all__ = [
    "ABI_VERSION",
    "CLIENT_ID",
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
    "Supervised",
    "as_text",
]
