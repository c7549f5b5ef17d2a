"""Where a frame ends, and how a frame is made comparable whose bytes cannot be equal.

This reader is apart from the one in harness/resp.py because it looks at a stream that may end
anywhere and never judges it: what is judged is whether two streams are equal.
"""

import re

_LINES, _BULKS, _AGGREGATES = b"+-:_#,(", b"$!=", b"*~>%|"


class NoFrame(Exception):
    """The bytes begin with what is no RESP element."""


def end_of_frame(data: bytes, start: int = 0):
    """The index behind the element at `start`; None if the data ends before it does."""
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return None
    kind, after = data[start : start + 1], line_end + 2
    if kind in _LINES:
        return after
    if kind not in _BULKS + _AGGREGATES or not data[start + 1 : line_end].lstrip(b"-").isdigit():
        raise NoFrame(data[start : start + 80])
    count = int(data[start + 1 : line_end])
    if kind in _BULKS:
        end = after + count + 2 if count >= 0 else after
        return end if end <= len(data) else None
    for _ in range(max(count, 0) * (2 if kind in b"%|" else 1) + (kind == b"|")):
        after = end_of_frame(data, after)
        if after is None:
            return None
    return after


def split(data: bytes):
    """The whole frames of a stream, and the rest that is none yet (or never will be)."""
    frames, start = [], 0
    try:
        while start < len(data):
            end = end_of_frame(data, start)
            if end is None:
                break
            frames.append(bytes(data[start:end]))
            start = end
    except NoFrame:
        pass
    return frames, bytes(data[start:])


def children(frame: bytes):
    """The head line of an aggregate and its elements; a map's are its pairs, as one each."""
    start = frame.index(b"\r\n") + 2
    head, elements = frame[:start], split(frame[start:])[0]
    if frame[:1] in b"%|":
        elements = [key + value for key, value in zip(elements[::2], elements[1::2])]
    return head, elements


# Masks: from a frame to a frame that two servers must have in common.

def blur(frame: bytes) -> bytes:
    """Nothing but the type."""
    return b"+<" + frame[:1] + b" blurred>\r\n"


def blur_positive(frame: bytes) -> bytes:
    """All but positive numbers."""
    return re.sub(rb"^:[1-9]\d*", b":<positive>", frame, flags=re.M)


def blur_numbers(frame: bytes) -> bytes:
    """All but numbers."""
    return re.sub(rb"^:-?\d+", b":<number>", frame, flags=re.M)


def sort_elements(frame: bytes) -> bytes:
    """The same elements at every level, in an order that does not depend on the server's."""
    if frame[:1] not in b"*~>%":
        return frame
    head, elements = children(frame)
    # A map's pair is two elements, of which the key stays the first.
    elements = [b"".join(map(sort_elements, split(element)[0])) for element in elements]
    return head + b"".join(sorted(elements))


def sort_unsubscribed(frames):
    """The confirmations in an order of their own, with no word of how many are left."""
    return sorted(blur_numbers(frame) for frame in frames)
