"""Writers to be killed: for each line of the standard input it forks a process that works on a store until then.

A line is "FOLDER SEED". The writer prints its process, and after each call of the store that returned what it did:
"kept ID SECOND", "evicted ID", before a forgetting "forgetting ID ..." and after it "forgot".
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from episodic_data import LIMIT, features, picture, segment

from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.sources.frame import SECOND_NS


def say(*words: object) -> None:
    """One line in one write, so that a kill leaves no half of it."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def work(folder: Path, seed: int) -> None:
    """Appends, evicts, forgets and checkpoints until it is killed."""
    order = random.Random(seed)
    with EpisodeStore.open(folder, LIMIT) as store:
        segments = store.segments()
        second = 1 + max((stored.segment.end_ns // SECOND_NS for stored in segments), default=0)
        while True:
            looked_at = features(second / 50) if order.random() < 0.3 else None
            appended = store.append(segment(second), picture(second), looked_at)
            # One write: what is evicted went in the same transaction.
            say("kept", appended.id, second, "evicted", *appended.evicted)
            second += 1
            if order.random() < 0.02:
                chosen = order.randrange(max(1, second - 100), second)
                limits = (chosen * SECOND_NS, (chosen + order.randrange(8)) * SECOND_NS)
                say("forgetting", *(stored.id for stored in store.segments(*limits)))
                store.forget(*limits)
                say("forgot")
            if order.random() < 0.05:
                store.begin_episode("reset")


def main() -> None:
    """Forks a writer a line and waits for its end."""
    for line in sys.stdin:
        folder, seed = line.rsplit(maxsplit=1)
        process = os.fork()
        if process == 0:
            say("process", os.getpid())
            work(Path(folder), int(seed))
        os.waitpid(process, 0)
        say("ended")


if __name__ == "__main__":
    main()
