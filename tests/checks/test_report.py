import pytest

from fixedpoint.checks import CheckFailed, Report
from fixedpoint.checks.report import Laws, NotApplicable, Violation

laws: Laws[int] = Laws()


@laws("positive")
def positive(number):
    if number <= 0:
        raise Violation("not positive")


@laws("reciprocal")
def reciprocal(number):
    1 / number


@laws("even")
def even(number):
    if number % 2:
        raise NotApplicable("odd")


def run(number, expected_failures=None) -> Report:
    return laws.test("a number", lambda: number, expected_failures)


def test_a_report_names_what_failed_and_why():
    report = run(0)
    assert [r.name for r in report.results] == ["positive", "reciprocal", "even"]
    assert [r.name for r in report.failures] == ["positive", "reciprocal"]
    with pytest.raises(
        CheckFailed, match=r"a number fails 2 of 3 checks\n  positive: not positive\n.*ZeroDivisionError"
    ):
        report.raise_if_failed()
    assert "FAIL  positive" in str(report)


def test_a_skipped_check_passes_and_says_why():
    report = run(1)
    assert report.passed
    assert [(r.name, r.message) for r in report.skipped] == [("even", "odd")]


def test_expected_failures_are_strict():
    assert run(-1, {"positive": "it is a debt"}).passed
    unexpected = run(1, {"positive": "it is a debt"})
    assert [r.name for r in unexpected.failures] == ["positive"]
    assert "unexpectedly passes" in unexpected.failures[0].message
    with pytest.raises(ValueError, match="no checks named"):
        run(1, {"negative": "?"})


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="positive"):
        laws("positive")(positive)
