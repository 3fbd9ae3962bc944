"""What a class offers as a service: its marked methods, their types, and a digest that both sides compare.

On a link, all of type `SERVICE`:

    call      request, subtype CALL     digest of the class u64, deadline i64 (CLOCK_MONOTONIC, ns; 0: none),
                                        number of the method u16; then its arguments, all of them, a MessagePack array
    cancel    message, subtype CANCEL   id of the call's request u64
    reply     subtype RESULT            what it returned, MessagePack
              subtype ERROR             what it raised (`multikernel.ipi.carried`)
              subtype UNKNOWN           no such class here: an array of those that are, [name, description] each

Methods are numbered in the order of their names. The digest is of names, types and fields, so two sides that have
another idea of the class find out at the first call, and never take one method for another. It goes with every call,
because the other end of a link may be another incarnation, with another image, at any time.

The names are the field's. MessagePack by msgspec, an extra: `pip install multikernel[typed]`.
"""

from __future__ import annotations

import hashlib
import inspect
import struct
import typing
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import GenericAlias
from typing import TYPE_CHECKING, Any, TypeVar, overload

from multikernel.errors import Unsupported

if TYPE_CHECKING:
    from types import ModuleType

SERVICE = 0x4001
"""The type of these messages."""

CALL, CANCEL = 0, 1
RESULT, ERROR, UNKNOWN = 0, 1, 2

HEADER = struct.Struct("<QqH")
ID = struct.Struct("<Q")

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__multikernel_raises__"
_NO_MATTER = {"default", "default_factory", "extra", "extra_json_schema", "description", "title", "examples"}


@overload
def method(function: F) -> F: ...


@overload
def method(*, raises: tuple[type[Exception], ...] = ()) -> Callable[[F], F]: ...


def method(function: F | None = None, *, raises: tuple[type[Exception], ...] = ()) -> F | Callable[[F], F]:
    """Mark a method of a class as one that may be called over a link; what is not marked cannot be.

    Every parameter and the result have a type that msgspec knows: numbers, text, bytes, lists, dicts, dataclasses,
    enums, `msgspec.Struct`s and so on.

    Args:
        function: the method; it may be `async`, for a service in an asynchronous image.
        raises: classes of errors of one's own that it may raise, to be raised at the caller's. Python's own and
            multikernel's are anyway.
    """

    def mark(function: F) -> F:
        setattr(function, _MARK, tuple(raises))
        return function

    return mark if function is None else mark(function)


@dataclass(frozen=True, eq=False)
class Method:
    """One of a class's methods."""

    name: str
    number: int
    text: str
    """As it is shown: get(key: str) -> bytes | None."""
    is_async: bool
    raises: tuple[type[Exception], ...]
    count: int
    """Of its parameters."""
    named: tuple[str, ...]
    """Those, the last of them, that are given by name only."""
    signature: inspect.Signature
    """Without self."""
    decode_arguments: Callable[[Any], tuple[Any, ...]]
    decode_result: Callable[[Any], Any]

    def bind(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """All arguments by position, defaults filled in. TypeError as for any call."""
        if not named and len(arguments) == self.count:
            return arguments
        try:
            bound = self.signature.bind(*arguments, **named)
        except TypeError as error:
            raise TypeError(f"{self.text}: {error}") from None
        bound.apply_defaults()
        return tuple(bound.arguments.values())

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Call the bound method with arguments as `bind` gives them."""
        if not self.named:
            return function(*arguments)
        by_place = self.count - len(self.named)
        return function(*arguments[:by_place], **dict(zip(self.named, arguments[by_place:], strict=True)))


@dataclass(frozen=True, eq=False)
class Interface:
    """What a class offers."""

    name: str
    methods: tuple[Method, ...]
    digest: int

    @property
    def text(self) -> str:
        """As it is shown, a line a method."""
        return "\n".join([f"{self.name} ({self.digest:016x})", *(f"  {method.text}" for method in self.methods)])


_interfaces: weakref.WeakKeyDictionary[type, Interface] = weakref.WeakKeyDictionary()


def interface_of(service: type) -> Interface:
    """What a class offers.

    Raises:
        TypeError: it is no class, or marks no method, or one that cannot be called over a link; the message says why.
        Unsupported: msgspec is not installed.
    """
    if not isinstance(service, type):
        raise TypeError(f"a service is a class with methods to be called, not {type(service).__name__}")
    known = _interfaces.get(service)
    if known is not None:
        return known
    names = sorted(name for name in dir(service) if hasattr(getattr(service, name), _MARK))
    if not names:
        raise TypeError(f"{service.__name__} offers nothing: mark the methods to be called with @multikernel.method")
    described = [_method(service, name, number) for number, name in enumerate(names)]
    whole = "\n".join([service.__name__, *(canonical for _, canonical in described)])
    digest = int.from_bytes(hashlib.sha256(whole.encode()).digest()[:8], "little")
    made = Interface(service.__name__, tuple(method for method, _ in described), digest)
    _interfaces[service] = made
    return made


def msgspec() -> ModuleType:
    """The library. Imported when used."""
    try:
        import msgspec as library
    except ImportError:
        raise Unsupported("services need msgspec, which is not installed: pip install multikernel[typed]") from None
    return library


def _method(service: type, name: str, number: int) -> tuple[Method, str]:
    """A method, and what of it the digest is made of."""
    where = f"{service.__name__}.{name}"
    function = inspect.getattr_static(service, name)
    if not inspect.isfunction(function):
        raise TypeError(f"{where} is marked and is no plain method")
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1:]  # without self
    for each in parameters:
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            raise TypeError(f"{where}: {each} cannot be called over a link; give each parameter a name of its own")
    hints = _hints(function, where)
    for missing in [each.name for each in parameters if each.name not in hints]:
        raise TypeError(f"{where}: parameter {missing!r} has no type")
    if "return" not in hints:
        raise TypeError(f"{where} says no type of its result; write `-> None` where there is none")
    types = [hints[each.name] for each in parameters]
    shown = ", ".join(f"{each.name}: {_shown(kind)}" for each, kind in zip(parameters, types, strict=True))
    described = [_described(kind, where) for kind in (*types, hints["return"])]
    library = msgspec().msgpack
    arguments = GenericAlias(tuple, tuple(types))
    method = Method(
        name=name,
        number=number,
        text=f"{name}({shown}) -> {_shown(hints['return'])}",
        is_async=inspect.iscoroutinefunction(function),
        raises=getattr(function, _MARK),
        count=len(parameters),
        named=tuple(each.name for each in parameters if each.kind is each.KEYWORD_ONLY),
        signature=signature.replace(parameters=parameters),
        decode_arguments=library.Decoder(arguments).decode,
        decode_result=library.Decoder(hints["return"]).decode,
    )
    named = zip([each.name for each in parameters] + ["return"], described, strict=True)
    return method, f"{name}({', '.join(f'{name}: {kind}' for name, kind in named)})"


def _hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{where}: {error}. Types of a service are looked up when it is used: import them outside of TYPE_CHECKING"
        ) from None


def _shown(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else repr(kind).replace("typing.", "")


def _described(kind: Any, where: str) -> str:
    try:
        return _canonical(msgspec().inspect.type_info(kind), set())
    except TypeError as error:
        raise TypeError(f"{where}: {_shown(kind)} cannot be carried: {error}") from None


def _canonical(what: Any, seen: set[type]) -> str:
    """A type with all its fields, the same on both sides whatever module each has it from."""
    library = msgspec()
    if isinstance(what, library.inspect.CustomType):
        raise TypeError(f"msgspec does not know {what.cls.__name__}; a dataclass or a msgspec.Struct would do")
    if isinstance(what, library.inspect.Type | library.inspect.Field):
        cls = getattr(what, "cls", None)
        if cls is not None and cls in seen:
            return str(cls.__name__)
        if cls is not None:
            seen.add(cls)
        fields = [name for name in what.__struct_fields__ if name not in _NO_MATTER]
        parts = [f"{name}={_canonical(getattr(what, name), seen)}" for name in fields]
        return f"{type(what).__name__}({', '.join(parts)})"
    if isinstance(what, type):
        members = getattr(what, "__members__", None)  # of an enum
        return what.__name__ if members is None else f"{what.__name__}{[(n, m.value) for n, m in members.items()]}"
    if isinstance(what, tuple | list):
        return f"[{', '.join(_canonical(each, seen) for each in what)}]"
    return repr(what)
