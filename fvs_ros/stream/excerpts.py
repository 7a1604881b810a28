"""Prefills excerpts: memories of a range of stamps or of recalled segments, each of which is made for one question."""

from __future__ import annotations

from dataclasses import dataclass

from fvs_ros.stream.evidence import shown_moments
from fvs_ros.stream.latest_memory import PublishedMemory
from fvs_ros.stream.model_protocol import StreamModel, StreamPrefilledMemory, StreamPrefixCache
from fvs_ros.stream.prefill import PREFILL_BUFFERS, ReadyMemory
from fvs_ros.stream.watchdog import ModelCalls


@dataclass(eq=False)
class _Prefill:
    memory: PublishedMemory
    prefilled: StreamPrefilledMemory


class ExcerptPrefill:
    """Prefills one excerpt at a time, chunk by chunk, in buffers of its own. Used by one thread.

    So the newest memory stays prefilled for other questions. The buffers, as large as the newest memory's, are freed as
    soon as no excerpt needs them. Where a question recalled segments they stay, as the next does so too: on CUDA new
    ones would have graphs recorded while it waits.

    Args:
        model: prefills.
        calls: the calls of the model by the worker that uses this.
    """

    def __init__(self, model: StreamModel, calls: ModelCalls) -> None:
        self._model = model
        self._calls = calls
        self._cache: StreamPrefixCache | None = None
        self._prefill: _Prefill | None = None
        self._ready: list[ReadyMemory] = []
        self._stays = False

    def ready(self, memory: PublishedMemory) -> ReadyMemory | None:
        """The excerpt, once its prefill is complete; until then each call computes the next chunk of it.

        Where another excerpt is on its way, or answers are given from as many as there are buffers for, nothing is
        computed.

        Raises:
            Exception: what the model failed with; the excerpt is given up.
        """
        if self._prefill is None:
            if len(self._ready) >= PREFILL_BUFFERS:
                return None
            self._stays |= bool(memory.recalled)
            with self._calls.call("allocation of a prefix"):
                if self._cache is None:
                    self._cache = self._model.new_prefix_cache()
                self._prefill = _Prefill(memory, self._cache.allocate(memory.snapshot))
        if self._prefill.memory is not memory:
            return None
        prefilled = self._prefill.prefilled
        try:
            with self._calls.call("prefill_chunk"):
                if not prefilled.prefill_chunk():
                    return None
                shown = shown_moments(memory)
        except BaseException:
            self.give_up(memory)
            raise
        self._prefill = None
        self._ready.append(ReadyMemory(prefilled, memory.status, shown, recalled=len(memory.recalled)))
        return self._ready[-1]

    def give_up(self, memory: PublishedMemory) -> None:
        """Stops the prefill of an excerpt that nobody waits for any more."""
        if self._prefill is not None and self._prefill.memory is memory:
            self._prefill.prefilled.close()
            self._prefill = None

    def release_unused(self) -> None:
        """Frees excerpts from which no answer is being given, and the buffers where none is left."""
        for ready in [ready for ready in self._ready if not ready.answers]:
            self._ready.remove(ready)
            ready.prefilled.close()
        if self._cache is not None and not (self._ready or self._prefill or self._stays):
            self._cache.close()
            self._cache = None

    def shrink(self) -> None:
        """Frees the buffers once no excerpt needs them, until the next does."""
        self._stays = False

    def close(self) -> None:
        """Frees everything; no answer may be given any more."""
        self.shrink()
        if self._prefill is not None:
            self.give_up(self._prefill.memory)
        self.release_unused()
