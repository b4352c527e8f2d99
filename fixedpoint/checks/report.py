"""Named checks and what came of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from fixedpoint.checks.compare import preserved

Case = TypeVar("Case")


class Violation(AssertionError):
    """A law does not hold; the message names the probable mistake."""


class NotApplicable(Exception):
    """A law says nothing about this plug-in; the message says why."""


class CheckFailed(AssertionError):
    """Some named checks failed; the message lists them."""


@dataclass(frozen=True)
class CheckResult:
    """What came of one check."""

    name: str
    passed: bool
    message: str = ""
    """Why it failed, was skipped, or was expected to fail."""
    seconds: float = 0.0
    skipped: bool = False
    """Nothing was tested; a skipped check counts as passed."""


@dataclass(frozen=True)
class Report:
    """What came of all checks of one plug-in."""

    subject: str
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> list[CheckResult]:
        """The checks that failed."""
        return [r for r in self.results if not r.passed]

    @property
    def skipped(self) -> list[CheckResult]:
        """The checks that did not apply."""
        return [r for r in self.results if r.skipped]

    def raise_if_failed(self) -> None:
        """Raise CheckFailed, naming the failed checks, unless all passed."""
        if not self.passed:
            lines = "\n".join(f"  {r.name}: {r.message}" for r in self.failures)
            raise CheckFailed(f"{self.subject} fails {len(self.failures)} of {len(self.results)} checks\n{lines}")

    def __str__(self) -> str:
        width = max(len(r.name) for r in self.results)
        passed = len(self.results) - len(self.failures) - len(self.skipped)
        aside = f", {len(self.skipped)} skipped" if self.skipped else ""
        lines = [f"{self.subject}: {passed} of {len(self.results)} checks passed{aside}"]
        for r in self.results:
            mark = "skip" if r.skipped else "ok" if r.passed else "FAIL"
            lines.append(f"  {mark:4}  {r.name:{width}}  {r.seconds:6.2f} s  {r.message}".rstrip())
        return "\n".join(lines)


class Laws(Generic[Case]):
    """An ordered list of named laws over one kind of case. Used as a decorator it adds one."""

    def __init__(self) -> None:
        self._laws: dict[str, Callable[[Case], None]] = {}

    def __call__(self, name: str) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
        """Register the decorated function, which raises Violation or NotApplicable, under `name`."""

        def register(law: Callable[[Case], None]) -> Callable[[Case], None]:
            if name in self._laws:
                raise ValueError(f"two laws are called {name!r}")
            self._laws[name] = law
            return law

        return register

    @property
    def names(self) -> list[str]:
        """Names in the order in which the laws are tested."""
        return list(self._laws)

    def test(self, subject: str, make: Callable[[], Case], expected_failures: Mapping[str, str] | None) -> Report:
        """Test every law on a case of its own, so that a broken plug-in cannot spoil the next law's data.

        Args:
            subject: name of the plug-in, for the report.
            make: makes a case.
            expected_failures: name -> reason; such a check must fail.

        Raises:
            ValueError: an expected failure that is no check's name.
        """
        expected = dict(expected_failures or {})
        if unknown := expected.keys() - self._laws.keys():
            raise ValueError(f"expected_failures: no checks named {sorted(unknown)}; there are {', '.join(self.names)}")
        return Report(subject, tuple(self._test(name, make, expected.get(name)) for name in self._laws))

    def _test(self, name: str, make: Callable[[], Case], reason: str | None) -> CheckResult:
        began = time.perf_counter()
        passed, skipped, message = True, False, ""
        with preserved():
            try:
                self._laws[name](make())
            except NotApplicable as why:
                skipped, message = True, str(why)
            except Violation as violation:
                passed, message = False, str(violation)
            except Exception as error:
                passed, message = False, f"raised {type(error).__name__}: {error}"
        if reason is not None:
            message = f"expected to fail: {reason}" if not passed else f"unexpectedly passes (expected: {reason})"
            passed, skipped = not passed, False
        return CheckResult(name, passed, message, time.perf_counter() - began, skipped)
