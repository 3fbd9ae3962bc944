"""A typed service on a core of its own: a class with methods, called over a link as if it were here.

Shows: a class that marks its methods, an instance that serves it, calls with types, an error that comes back as what it
is, and many calls under way at once. One file is both: `main` is what the instance runs, `program` calls it.

Run it:     python examples/service.py      (needs msgspec: pip install 'multikernel[typed]')
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import multikernel as mk


@dataclass
class Account:
    """What the service gives out."""

    owner: str
    balance: int


class TooLittle(Exception):
    """An error of the service's own: both sides have this class, so it arrives as what it is."""

    def __init__(self, owner: str, missing: int) -> None:
        super().__init__(owner, missing)
        self.owner, self.missing = owner, missing


class Bank:
    """Accounts, by owner. Nothing here knows of links or messages."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    @mk.method
    def deposit(self, owner: str, amount: int = 1) -> Account:
        account = self._accounts.setdefault(owner, Account(owner, 0))
        account.balance += amount
        return account

    @mk.method(raises=(TooLittle,))
    def pay(self, source: str, target: str, amount: int) -> list[Account]:
        if amount > self._accounts[source].balance:
            raise TooLittle(source, amount - self._accounts[source].balance)
        self._accounts[source].balance -= amount
        return [self._accounts[source], self.deposit(target, amount)]


def main(kernel: mk.Kernel) -> None:
    """Inside the instance."""
    kernel.serve(Bank())


def program() -> int:
    """Outside: make a machine with one instance, and call it. Returns the exit status."""
    with mk.Machine(name="service-example") as machine:
        instance = machine.create("bank", memory="64M")
        instance.load(f"{__file__}:main")
        instance.boot()
        with machine.connect("bank") as link:
            bank = link.proxy(Bank, timeout=5.0)  # a Bank to the eyes of an editor, and of a type checker
            calls = [mk.begin(bank.deposit, "ada") for _ in range(100)]  # all under way at once
            print(f"ada has {max(call.result().balance for call in calls)}")
            print(f"she pays: {bank.pay('ada', 'bob', 30)}")
            try:
                bank.pay("bob", "ada", 31)
            except TooLittle as error:
                print(f"{error.owner} lacks {error.missing}")
            try:
                bank.pay("nobody", "ada", 1)
            except KeyError as error:
                print(f"no account of {error}")
            try:
                bank.deposit("ada", "much")  # type: ignore[arg-type]
            except TypeError as error:
                print(error)
        return 0


if __name__ == "__main__":
    sys.exit(program())
