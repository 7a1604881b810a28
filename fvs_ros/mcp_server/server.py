"""The MCP server: what an agent can ask, recall and look at. It knows a backend, and no transport."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from fvs_ros import __version__
from fvs_ros.backends.backend import MemoryBackend
from fvs_ros.backends.event_loop import opened
from fvs_ros.mcp_server.arguments import Message, Near, Stamp, stamp_ns
from fvs_ros.mcp_server.bridge import Progress, answer_of, ready, result_of, tool_errors, watched
from fvs_ros.mcp_server.results import (
    UNTRUSTED,
    AnswerResult,
    KeyframeResult,
    MemoryResult,
    MomentsResult,
    SeenMoment,
    WatchesResult,
    WatchResult,
    answer_result,
    keyframe_result,
    memory_result,
    seen_moment,
    tool_result,
    watch_result,
    watches_result,
)
from fvs_ros.stream.types import AskOptions, ChatMessage, Moment, Picture
from fvs_ros.stream.watch import WatchOptions

_MOST_MOMENTS = 50
_MOST_PICTURES = 5
_LONGEST_WATCH_S = 3600.0
_READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=True)
INSTRUCTIONS = (
    "The memory of a robot's camera. `ask` answers questions about everything that it saw, with the moments that the "
    "answer rests on; `recall` finds moments by words, time and place; `keyframe` shows one; `memory` tells how far "
    "back it reaches. `watch` waits until something is true of what the camera sees; `watches` lists what is waited "
    f"for. {UNTRUSTED}"
)


class MemoryTools:
    """The tools.

    Args:
        opening: the backend, as soon as it is there.
    """

    def __init__(self, opening: Future[MemoryBackend]) -> None:
        self._opening = opening

    async def ask(
        self,
        context: Context,
        question: Annotated[str, Field(description="In any language that the model speaks, about what was seen.")],
        since: Annotated[Stamp | None, Field(description="Answer only from what was seen from this stamp on.")] = None,
        until: Annotated[Stamp | None, Field(description="Answer only from what was seen up to this stamp.")] = None,
        near: Annotated[Near | None, Field(description="Answer only from what was seen from near this place.")] = None,
        choices: Annotated[
            list[str] | None, Field(description="Answer with the likeliest of these texts, and say how likely each is.")
        ] = None,
        json_schema: Annotated[
            dict[str, Any] | None,
            Field(
                description="Answer with JSON that follows this schema, which the model is not shown; not with choices."
            ),
        ] = None,
        history: Annotated[
            list[Message] | None,
            Field(description="Earlier questions and answers, oldest first, if the question follows up on them."),
        ] = None,
        max_new_tokens: Annotated[int | None, Field(ge=1, description="Longest answer, in tokens.")] = None,
        timeout_s: Annotated[float | None, Field(gt=0, description="Seconds until the answer is complete.")] = None,
        with_images: Annotated[bool, Field(description="Also return pictures of the moments.")] = False,
    ) -> Annotated[CallToolResult, AnswerResult]:
        """Asks, with the text so far as progress; a cancelled call ends the question."""
        options = replace(
            _options(since, until, near),
            choices=tuple(choices or ()),
            json_schema="" if json_schema is None else json.dumps(json_schema, ensure_ascii=False),
            history=tuple(ChatMessage(message.role, message.text) for message in history or ()),
            max_new_tokens=max_new_tokens,
            timeout_s=timeout_s,
            with_images=with_images,
        )
        progress = Progress(context)
        backend = await ready(self._opening, progress)
        answer = await answer_of(partial(backend.ask, question, options), progress)
        result = answer_result(answer, options.choices)
        pictures = [moment.picture for moment in answer.moments]
        return tool_result(result, _numbered(pictures, result.moments))

    async def recall(
        self,
        context: Context,
        text: Annotated[
            str | None, Field(description="What to look for, as a question; left out: everything, in order of time.")
        ] = None,
        since: Annotated[Stamp | None, Field(description="Only what was seen from this stamp on.")] = None,
        until: Annotated[Stamp | None, Field(description="Only what was seen up to this stamp.")] = None,
        near: Annotated[Near | None, Field(description="Only what was seen from near this place.")] = None,
        limit: Annotated[int, Field(ge=1, le=_MOST_MOMENTS, description="Most moments to return.")] = 10,
        with_images: Annotated[bool, Field(description=f"Also pictures of the first {_MOST_PICTURES}.")] = False,
    ) -> Annotated[CallToolResult, MomentsResult]:
        """Finds moments: by the model's own attention where there is a text, else the newest of those that fit."""
        options = _options(since, until, near)
        progress = Progress(context)
        backend = await ready(self._opening, progress)
        moments: Sequence[Moment]
        if text is None:
            moments = await result_of(backend.moments(options.since_ns, options.until_ns, options.near))
            end_ns = max((moment.end_ns for moment in moments), default=None)
        else:
            answer = await answer_of(partial(backend.ask, text, options), progress)
            moments, end_ns = answer.all_moments, answer.end_ns
        # Ranked ones by relevance; all others, and equal ones, newest first.
        moments = sorted(moments, key=lambda moment: (moment.relevance or 0.0, moment.stamp_ns), reverse=True)
        chosen = moments[:limit]
        result = MomentsResult(moments=[seen_moment(moment, end_ns) for moment in chosen], found=len(moments))
        pictures = await _pictures(backend, chosen[:_MOST_PICTURES]) if with_images else []
        return tool_result(result, _numbered(pictures, result.moments))

    async def keyframe(
        self,
        context: Context,
        stamp: Annotated[Stamp, Field(description="When: the nearest one that is kept is shown.")],
    ) -> Annotated[CallToolResult, KeyframeResult]:
        """Shows the keyframe that is nearest to a stamp."""
        wanted_ns = _checked("stamp", stamp)
        assert wanted_ns is not None
        backend = await ready(self._opening, Progress(context))
        picture = await result_of(backend.keyframe(wanted_ns))
        return tool_result(keyframe_result(picture), [picture])

    async def watch(
        self,
        context: Context,
        condition: Annotated[
            str, Field(description='A statement about now, such as "the door is open", or a yes/no question.')
        ],
        timeout_s: Annotated[
            float, Field(gt=0, le=_LONGEST_WATCH_S, description="Seconds after which it ends, true or not.")
        ] = 60.0,
        hold_s: Annotated[
            float, Field(ge=0, description="Seconds for which it must be true before that is told.")
        ] = 0.0,
        period_s: Annotated[float, Field(ge=0, description="Seconds between two looks; 0: at each memory.")] = 0.0,
        with_images: Annotated[bool, Field(description="Also return pictures of the moments.")] = False,
    ) -> Annotated[CallToolResult, WatchResult]:
        """Waits until a condition is true, with its probability as progress; a cancelled call ends the watch."""
        options = WatchOptions(
            period_s=period_s, hold_s=hold_s, once=True, timeout_s=timeout_s, with_images=with_images
        )
        progress = Progress(context)
        backend = await ready(self._opening, progress)
        last, looks, became_true = await watched(partial(backend.watch, condition, options), progress)
        result = watch_result(last, looks, became_true)
        pictures = [] if last is None else [moment.picture for moment in last.moments]
        return tool_result(result, _numbered(pictures, result.moments))

    async def watches(self, context: Context) -> Annotated[CallToolResult, WatchesResult]:
        """Lists all that is watched for, whoever asked for it."""
        backend = await ready(self._opening, Progress(context))
        return tool_result(watches_result(await result_of(backend.watches())))

    async def memory(self) -> Annotated[CallToolResult, MemoryResult]:
        """Tells what is remembered now, without waiting for what is still read."""
        with tool_errors():
            backend = opened(self._opening)
        report = await result_of(backend.memory())
        return tool_result(memory_result(report, backend.progress()))


def build_server(opening: Future[MemoryBackend]) -> MCPServer:
    """The server and its tools.

    Args:
        opening: the backend, as soon as it is there; until then, calls wait.
    """
    # The log of each call is the client's; at INFO the SDK would write arguments' errors to standard error.
    server = MCPServer("flash-vstream", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING")
    tools = MemoryTools(opening)
    offered: list[tuple[Callable[..., Any], str]] = [
        (tools.ask, "Ask about everything that the camera saw: answer, and the moments that it rests on."),
        (tools.recall, "Find moments by words (as a question), by time and by place."),
        (tools.keyframe, "Show the stored picture that was taken nearest to a stamp."),
        (tools.watch, "Wait until something is true of what the camera sees, and tell when it became so."),
        (tools.watches, "What is being watched for, and whether it is true."),
        (tools.memory, "How far back the memory reaches, and how full it is."),
    ]
    for tool, description in offered:
        server.add_tool(tool, description=f"{description} {UNTRUSTED}", annotations=_READ_ONLY)
    return server


def _checked(name: str, value: str | float | None) -> int | None:
    try:
        return stamp_ns(name, value)
    except ValueError as error:
        raise ToolError(str(error)) from None


def _options(since: str | float | None, until: str | float | None, near: Near | None) -> AskOptions:
    return AskOptions(
        since_ns=_checked("since", since),
        until_ns=_checked("until", until),
        near=None if near is None else near.area(),
    )


async def _pictures(backend: MemoryBackend, moments: Sequence[Moment]) -> list[Picture | None]:
    """Pictures of moments; None where none of that scene is kept."""
    pictures: list[Picture | None] = []
    for moment in moments:
        try:
            picture = await result_of(backend.keyframe(moment.stamp_ns))
        except ToolError:
            pictures.append(None)
            continue
        # That of another scene would show what the moment does not.
        pictures.append(picture if moment.start_ns <= picture.stamp_ns <= moment.end_ns else None)
    return pictures


def _numbered(pictures: Sequence[Picture | None], results: Sequence[SeenMoment]) -> list[Picture]:
    """The pictures that there are; each result is told which is its own."""
    given: list[Picture] = []
    for picture, result in zip(pictures, results, strict=False):
        if picture is not None:
            result.picture = len(given)
            given.append(picture)
    return given
