"""Which process left its name behind, and whether it still runs."""

import os
import subprocess
import sys

import pytest

from pyrovae.runs.process import is_gone, is_me, me

NAME = """
import runpy, sys
print(runpy.run_path(sys.argv[1])["me"](), flush=True)
sys.stdin.readline()
"""


def test_of_this_process_and_of_another():
    assert is_me(me())
    assert is_me({**me(), "token": "more"})
    assert is_gone(me()) is False
    file = sys.modules[me.__module__].__file__
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    other = subprocess.Popen([sys.executable, "-c", NAME, file], **pipes)
    name = eval(other.stdout.readline())
    assert not is_me(name)
    assert is_gone(name) is False
    other.communicate("\n")
    assert is_gone(name) is True


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"pid": 2**22 + 1}, True),  # beyond the largest there is
        ({"pid": 2**80}, True),
        ({"started": "1 before"}, True),  # the number was given again
        ({"pid": os.getppid(), "started": None}, False),  # it is not known when it began
        ({"pid": 2**22 + 1, "host": "elsewhere"}, None),
        ({"pid": 2**22 + 1, "namespace": "pid:[1]"}, None),  # a container of the same host name
        ({"pid": "12"}, None),
    ],
)
def test_what_can_be_seen(change, gone):
    assert is_gone({**me(), **change}) is gone


def test_a_name_without_a_namespace_tells_nothing():
    name = me()
    del name["namespace"]
    assert is_gone({**name, "pid": 2**22 + 1}) is None
    assert is_gone({}) is None
