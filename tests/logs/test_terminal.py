"""The display in a real (pseudo) terminal, and plain lines everywhere else."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys

import pytest

from dreamer.logs.terminal import PlainTerminal, clean, duration
from dreamer.system.streams import LastingStream

RECORD = {
    "step": 12_000, "wall_time": 60.0, "updates": 1200, "train/return": 123.45,
    "eval/return": 130.0, "model/kl_loss": 3.0, "model/actor_loss": -1.5,
    "model/model_loss": 11_412.34, "nonfinite/train/value_loss": 2, "fps/frames": 88.4,
    "fps/updates": 3.14159,
}  # fmt: skip


def test_a_plain_line_says_it_all_in_text_alone():
    stream = io.StringIO()
    PlainTerminal(LastingStream(stream), 250_000).write(RECORD, eta=3723.4)
    assert stream.getvalue() == (
        "step 12,000/250,000 (4.8%)  train return 123.5  eval return 130.0  "
        "loss: model 11,412 actor -1.5 kl 3  frames/s 88  updates/s 3.1  ETA 1:02:03\n"
    )


def test_durations():
    assert [duration(seconds) for seconds in (None, 0, 59.6, 100_000)] == [
        *("?", "0:00:00", "0:01:00", "27:46:40")
    ]


def test_control_characters_cannot_reach_the_terminal():
    assert clean("a\x1b[2Jb\x07\r\nc\td\x9b") == "a�[2Jb��\nc\td�"


def test_what_the_encoding_lacks_is_escaped():
    raw = io.BytesIO()
    stream = LastingStream(io.TextIOWrapper(raw, encoding="ascii"))
    PlainTerminal(stream, 1).message("caf\u00e9")
    assert raw.getvalue() == b"caf\\xe9\n"


SHOW = """
import sys, time, warnings
from pathlib import Path
from dreamer.logs.logger import Logger
from dreamer.logs.terminal import Phase
folder = Path(sys.argv[1]) / "task" / "dreamer" / "0"
folder.mkdir(parents=True)
with Logger(folder, tensorboard=False, terminal=sys.argv[2], total_steps=4000) as logger:
    logger.resume(1000, 7200.0)
    logger.message("resumed")
    logger.scalars({"eval/return": 7.5})
    logger.write(2000, updates=10)
    print("printed")
    logger.scalars({"train/model_loss": 0.25})
    logger.write(3000, updates=20)
    warnings.warn("something \\x1b[31mred")
    logger.progress(Phase("evaluating", 3, 10, "episodes"), 3100, 7384.0)
    logger.progress(Phase("evaluating", 4, 10, "episodes"))
    time.sleep(0.6)
print("after")
"""


def show(folder, kind, term="xterm-256color", script=SHOW):
    """The bytes that a script writes to a pseudo-terminal of 100 columns."""
    main, side = pty.openpty()
    env = {**os.environ, "TERM": term, "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder), kind], stdout=side, stderr=side, env=env
    ) as child:
        os.close(side)
        written = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # how Linux reports the end of a pseudo-terminal
                break
            written += part
            if not part:
                break
    os.close(main)
    assert child.returncode == 0, written.decode()
    return written.decode()


def test_the_live_display_shows_the_state_below_messages(tmp_path):
    written = show(tmp_path, "auto")
    panels = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    last = panels[panels.rindex("\u256d") :]
    assert "evaluating 4 / 10 episodes" in panels and "evaluating" not in last
    assert "task/dreamer/0" in last and "3,100 / 4,000 steps" in last and "77.5%" in last
    assert re.search(r"elapsed 2:00:\d\d  ETA 2:0[23]:\d\d ", last)
    assert "eval return 7.5" in last and "model 0.25" in last
    assert "updates 20" in last and "updates/s" in last
    for line in ("resumed\r\n", "printed\r\n", "warning: something \ufffd[31mred\r\n"):
        assert written.index(line) < written.rindex("\u256d")
    assert written.endswith("after\r\n")
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1  # the cursor comes back


def test_the_clock_counts_setting_up_and_never_goes_back(tmp_path):
    script = SHOW.replace("logger.resume(1000, 7200.0)", "time.sleep(2.1); logger.resume(0, 0.0)")
    found = re.findall(r"elapsed (\d:\d\d:\d\d)", show(tmp_path, "live", script=script))
    assert found == sorted(found) and found[-1] >= "0:00:02"


@pytest.mark.parametrize(("kind", "term"), [("plain", "xterm-256color"), ("auto", "dumb")])
def test_plain_lines_hold_no_escape_codes(tmp_path, kind, term):
    written = show(tmp_path, kind, term)
    assert "\x1b" not in written
    assert written.count("ETA") == 3 and written.count("evaluating, 10 episodes\r\n") == 1


def test_a_display_that_says_nothing_yet_leaves_nothing(tmp_path):
    early = SHOW.partition("    logger.resume")[0]
    written = show(tmp_path, "live", script=f"{early}    time.sleep(0.1)\nprint('after')")
    assert "0 / 4,000" in written and written.endswith("\x1b[1A\x1b[2Kafter\r\n")
