"""pynetdicom's upper layer, made fast from outside: six layers by subclassing, each with a switch.

    wire        large reads into one buffer, no delayed acknowledgements, no PDU longer than was negotiated
    reactor     threads wait for the socket and for each other instead of sleeping a millisecond a turn
    fragments   P-DATA-TF PDUs are cut where they lie in the buffer, however the network split them
    inline      C-STORE is served on the thread that reads the network, instead of handed to another
    stream      fragments go to the disk as they come, so that memory does not grow with the object
    codec       C-STORE and C-ECHO commands and responses by ``struct``; presentation contexts copied shallowly

pynetdicom keeps negotiation, the state machine (PS3.8 Section 9.2) and every message that is none of these. What a
layer does not understand goes the stock way, and a pynetdicom whose insides moved is used as it comes (``hooks``).
The fast path emits none of pynetdicom's notification events for the messages that it serves.
"""

from __future__ import annotations

from overread.receive.upper_layer.layers import FAST, STOCK, Layers
from overread.receive.upper_layer.server import Server

__all__ = ["FAST", "STOCK", "Layers", "Server"]
