"""Ctrl-C is answered where nothing gets lost by it, and is never taken for a failure."""

import os
import signal
from collections.abc import Callable

import pytest

from pglapse.demo.interrupts import Interrupted, Interrupts


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def play(act: Callable[[], object], *, held: bool) -> None:
    """Do ``act`` as the demo does its steps."""
    with Interrupts() as interrupts, interrupts.allowed():
        if held:
            with interrupts.held():
                act()
        else:
            act()


def die_of_it() -> None:
    ctrl_c()
    raise RuntimeError("a child died of it")


def swallow_it() -> None:
    try:
        ctrl_c()
    except Interrupted:
        raise OSError("broken off") from None


def fail() -> None:
    raise RuntimeError("initdb failed")


def test_what_fails_after_a_ctrl_c_while_it_is_held_back_is_the_interruption() -> None:
    with pytest.raises(Interrupted) as raised:
        play(die_of_it, held=True)

    assert raised.value.exit_code == 130
    assert isinstance(raised.value.__cause__, RuntimeError)


def test_an_interruption_that_somebody_swallowed_is_still_one() -> None:
    with pytest.raises(Interrupted):
        play(swallow_it, held=False)


@pytest.mark.parametrize("held", [False, True])
def test_a_failure_without_a_ctrl_c_stays_a_failure(held: bool) -> None:
    with pytest.raises(RuntimeError, match="initdb"):
        play(fail, held=held)


def test_a_ctrl_c_that_is_held_back_is_answered_right_afterwards() -> None:
    done = []

    with pytest.raises(Interrupted):
        play(lambda: (ctrl_c(), done.append(1)), held=True)

    assert done
