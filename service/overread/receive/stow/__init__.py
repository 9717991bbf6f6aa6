"""STOW-RS (PS3.18 Section 10.5): instances come in over HTTP, by the same intake as those of DIMSE.

    server ─▶ connection ─▶ exchange: one head ─▶ request: is it one for us? ─▶ body ─▶ multipart ─▶ part10 ─▶ intake
    accepts    one thread    h11                   doorkeeper: who is it?        │         one part at a time     │
                                                                                 └── wire: deadlines, pace       ▼
                                                                               answer ◀── store: what became of each

A body is never whole in memory: what a connection holds is one window of 128 kB, however long part and body are.
"""
