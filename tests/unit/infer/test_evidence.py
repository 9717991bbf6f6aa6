"""Of what a process wrote before it crashed, that is kept which helps."""

from __future__ import annotations

from overread.infer.evidence import helpful

MODULES = ", ".join(f"some.package.with.a.long_name._module_{n}" for n in range(218))
CRASH = f"""Loading weights
window 7 of 12: the buffer is too small

Fatal Python error: Segmentation fault

Current thread 0x00007f18 (most recent call first):
  File "/models/spleen/scripts/net.py", line 42 in forward
  File "/models/spleen/scripts/net.py", line 17 in run
{chr(10).join(f'  File "/usr/lib/torch/module.py", line {n} in call' for n in range(30))}

Extension modules: {MODULES} (total: 218)
"""


def test_of_a_crash_the_error_the_top_of_the_stack_and_the_last_own_words_are_kept() -> None:
    told = helpful(CRASH)
    assert told.startswith("Loading weights\nwindow 7 of 12: the buffer is too small\nFatal Python error: Segmentation")
    assert 'net.py", line 42 in forward' in told
    assert "Extension modules" not in told
    assert "line 29 in call" not in told
    assert len(told) < 2000


def test_of_much_that_was_said_the_end_is_kept() -> None:
    told = helpful("\n".join(f"window {n}" for n in range(5000)))
    assert told.endswith("window 4998\nwindow 4999")
    assert len(told) <= 1500


def test_what_the_cage_makes_libraries_say_is_left_out() -> None:
    assert helpful("Fontconfig error: Cannot load default config file\nno memory\n") == "no memory"
