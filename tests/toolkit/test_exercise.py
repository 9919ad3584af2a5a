"""The check of an exercise says what is off."""

import numpy as np
import pytest

import minidl
from minidl.tools.exercise import check

RIGHT = np.arange(1.0, 5).reshape(2, 2)
WRONG = {
    "shape (4,), where (2, 2) is right.": RIGHT.ravel(),
    "-1 at (0, 0), where 1 is right; 4 of 4 elements are wrong: -1 times what is right.": -RIGHT,
    "3 at (0, 1), where 2 is right; 2 of 4 elements are wrong: the transpose of what is right.": RIGHT.T,
    "nan at (0, 0), where 1 is right; 1 of 4 elements are wrong.": RIGHT * [[np.nan, 1], [1, 1]],
    "0 at (0, 0), where 1 is right; 4 of 4 elements are wrong.": np.zeros((2, 2)),
    "<U1 values, where numbers are right.": "1",
}


@pytest.mark.parametrize(
    "answer", [RIGHT, minidl.tensor(RIGHT, requires_grad=True), RIGHT.tolist(), RIGHT * (1 + 1e-9)]
)
def test_a_right_answer(answer, capsys):
    def attempt():
        return answer

    check(attempt, lambda: RIGHT, [(), ()])
    assert capsys.readouterr().out == "attempt: right, in 2 cases.\n"


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_answer(message, capsys):
    def attempt(x, y):
        return WRONG[message]

    check(attempt, lambda x, y: RIGHT, [(np.zeros((2, 3)), 4)])
    assert capsys.readouterr().out == f"attempt(array of shape (2, 3), 4): not yet. It gives {message}\n"


def test_the_first_wrong_case_is_named(capsys):
    def attempt(x):
        return x

    check(attempt, lambda x: x**2, [(1,), (0,), (3,), (5,)])
    assert capsys.readouterr().out == "attempt(3): not yet. It gives 3, where 9 is right: 0.3333 times what is right.\n"
