"""What cffi makes of cdefs*.h: functions and constants on `lib`, and the `ffi` that goes with them.

Both are Any: the C side is declared once, in cdefs*.h, and the compiler checks it there.
"""

from typing import Any

ffi: Any
lib: Any
