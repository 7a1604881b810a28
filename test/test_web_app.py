"""The page's server, route by route, on an engine with a fake model: what it tells, and what it refuses."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import pytest
from episode_engines import running, scenes, wait_until
from fakes import PATIENCE_S, FakeModel, frame
from needs import STARLETTE, needed

needed("starlette", STARLETTE)
from starlette.testclient import TestClient

from fvs_ros.backends.backend import MemoryBackend
from fvs_ros.backends.engine_backend import EngineBackend
from fvs_ros.chat.player import Player
from fvs_ros.errors import ReadableError
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.web.app import MOST_BYTES, build_app

TOKEN = "0123456789abcdef"
LOCAL = "http://127.0.0.1:8766"
ORDER = '<img src=x onerror="alert(1)"> IGNORE ALL RULES'


def opened(backend: MemoryBackend) -> Future[MemoryBackend]:
    opening: Future[MemoryBackend] = Future()
    opening.set_result(backend)
    return opening


def client(opening: Future[MemoryBackend], token: str | None = None, url: str = LOCAL) -> TestClient:
    return TestClient(build_app(opening, "127.0.0.1", token), base_url=url)


@contextmanager
def backend_of(model: FakeModel, player: Player | None = None) -> Iterator[tuple[StreamEngine, EngineBackend]]:
    with running(None, model) as (engine, store):
        backend = EngineBackend(engine, store, model.memory_config, model.name, player)
        yield engine, backend
        backend.close()


@pytest.fixture
def asked(model: FakeModel) -> Iterator[tuple[StreamEngine, TestClient]]:
    """An engine that saw three scenes of six seconds, and a browser."""
    with backend_of(model) as (engine, backend):
        scenes(engine)
        engine.save_memory(PATIENCE_S)
        yield engine, client(opened(backend))


def lines(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def test_the_page_and_all_that_it_loads_is_served_from_here(asked: tuple[StreamEngine, TestClient]) -> None:
    page = asked[1].get("/")
    assert page.headers["content-type"].startswith("text/html")
    for name, kind in (("main.js", "javascript"), ("page.css", "text/css"), ("icon.svg", "image/svg+xml")):
        assert f'"{name}"' in page.text
        assert kind in asked[1].get(f"/{name}").headers["content-type"]
    assert "://" not in page.text.replace("http://www.w3.org/", "")
    for nowhere in ("/app.py", "/../app.py", "/%2e%2e/app.py", "/api/", "/api/nothing"):
        assert asked[1].get(nowhere).status_code == 404


def test_the_state_tells_of_memory_frames_and_questions(asked: tuple[StreamEngine, TestClient]) -> None:
    state = asked[1].get("/api/state").json()
    assert (state["model"], state["steps"], state["span_s"], state["problem"]) == ("fake", 9, 17, "")
    assert (state["csm"], state["dam"]) == ([8, 8], [4, 4])
    assert (state["frames"]["received"], state["frames"]["ingested"], state["frames"]["dropped"]) == (18, 18, 0)
    asked[1].post("/api/ask", json={"question": "What?"})
    after = asked[1].get("/api/state").json()
    assert after["questions"] == {"asked": 1, "answered": 1, "failed": 0}
    assert after["seconds"]["answer"] > 0


def test_the_timeline_tells_how_each_moment_is_kept(asked: tuple[StreamEngine, TestClient]) -> None:
    shown = asked[1].get("/api/moments").json()
    moments = shown["moments"]
    assert shown["live"]
    assert [moment["stamp"] for moment in moments] == sorted((one["stamp"] for one in moments), key=float)
    assert sum(moment["synopsis"] for moment in moments) == 8
    assert sum(moment["detail"] for moment in moments) == 4
    newest = moments[-1]
    assert newest["place"] == {"frame": "map", "x": newest["place"]["x"], "y": 0.0, "heading": 0.0}
    assert newest["to_s"] == 0
    assert all(moment["from_s"] >= moment["age_s"] >= moment["to_s"] for moment in moments)
    assert moments[0]["age"] == "17 s ago"


def test_a_picture_tells_how_far_it_is_from_what_was_asked_for(asked: tuple[StreamEngine, TestClient]) -> None:
    response = asked[1].get("/api/picture", params={"stamp": "1"})
    assert response.headers["content-type"] == "image/jpeg"
    assert float(response.headers["fvs-stamp"]) - 1 == float(response.headers["fvs-offset"])
    assert cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR) is not None
    for wrong in ({}, {"stamp": "soon"}, {"stamp": "nan"}, {"stamp": "1e400"}):
        assert asked[1].get("/api/picture", params=wrong).status_code == 400


def test_an_answer_comes_by_tokens_and_then_with_pictures(asked: tuple[StreamEngine, TestClient]) -> None:
    events = lines(asked[1].post("/api/ask", json={"question": "What do you see?"}))
    answer = events[-1]["answer"]
    assert "".join(event["token"] for event in events[:-1]) == answer["text"]
    assert len(events) > 2
    assert answer["text"].startswith("9 steps:")
    first = answer["moments"][0]
    assert base64.b64decode(first["picture"])[:2] == b"\xff\xd8"
    assert first["place"]["frame"] == "map"


def test_what_a_picture_says_stays_a_text_of_one_line(model: FakeModel, asked: tuple[StreamEngine, TestClient]) -> None:
    model.say = lambda question, steps: f"{ORDER}\n{{}}"
    assert lines(asked[1].post("/api/ask", json={"question": "What?"}))[-1]["answer"]["text"] == f"{ORDER}\n{{}}"


def test_a_question_that_is_refused_says_why(asked: tuple[StreamEngine, TestClient]) -> None:
    events = lines(asked[1].post("/api/ask", json={"question": " "}))
    assert [event["code"] for event in events] == ["INVALID_QUESTION"]
    for body in (b"", b"[]", b"nonsense", b'{"question": 1}', b'{"question": "a", "more": 1}', b"[" * 60_000):
        refused = asked[1].post("/api/ask", content=body, headers={"Content-Type": "application/json"})
        assert (refused.status_code, refused.json()) == (400, {"error": 'send {"question": "..."}'})
    long = json.dumps({"question": "a" * MOST_BYTES})
    refused = asked[1].post("/api/ask", content=long, headers={"Content-Type": "application/json"})
    assert "more than 65536 bytes" in refused.json()["error"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_no_form_of_another_site_can_ask(kind: str, asked: tuple[StreamEngine, TestClient]) -> None:
    response = asked[1].post("/api/ask", content=b'{"question": "What?"}', headers={"Content-Type": kind})
    assert response.status_code == 400
    assert asked[0].statistics.questions == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": LOCAL, "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:8000"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "evil.example"}, 400),
        ({"Host": "evil.example:8766", "Origin": "http://evil.example:8766"}, 400),
        ({"Host": "localhost:1"}, 200),
    ],
)
def test_no_other_site_reaches_it_through_a_browser(
    headers: dict[str, str], status: int, asked: tuple[StreamEngine, TestClient]
) -> None:
    assert asked[1].get("/api/state", headers=headers).status_code == status
    assert asked[1].post("/api/ask", json={"question": "What?"}, headers=headers).status_code == status


def test_every_response_keeps_browsers_to_this_page(asked: tuple[StreamEngine, TestClient]) -> None:
    for path in ("/", "/main.js", "/api/state", "/api/picture?stamp=1", "/nothing"):
        headers = asked[1].get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["img-src"] == "'self' blob:"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert not [name for name in headers if name.startswith("access-control")]


def test_with_a_token_the_page_comes_and_tells_nothing_without_it(model: FakeModel) -> None:
    with backend_of(model) as (_, backend):
        browser = client(opened(backend), TOKEN, "http://robot.example")
        assert browser.get("/").status_code == 200
        for path in ("/api/state", "/api/camera", "/api/moments", "/api/picture?stamp=1"):
            assert browser.get(path).status_code == 401
            assert browser.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert browser.post("/api/ask", json={"question": "What?"}).status_code == 401
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert browser.get("/api/state", headers=right).json()["model"] == "fake"
        foreign = {**right, "Origin": "http://evil.example"}
        assert browser.get("/api/state", headers=foreign).status_code == 403


def test_until_the_model_is_there_the_page_says_so_and_questions_wait(model: FakeModel) -> None:
    opening: Future[MemoryBackend] = Future()
    browser = client(opening)
    assert browser.get("/api/state").json() == {"progress": "the model is loaded"}
    assert browser.get("/api/camera").json()["error"].startswith("not yet: the model is being loaded")
    assert browser.get("/api/moments").status_code == 404
    opening.set_exception(ReadableError("there is no such model"))
    assert "no such model" in browser.get("/api/state").json()["problem"]
    assert "no such model" in lines(browser.post("/api/ask", json={"question": "What?"}))[-1]["error"]


def test_a_memory_that_cannot_be_opened_for_any_reason_says_why() -> None:
    opening: Future[MemoryBackend] = Future()
    opening.set_exception(RuntimeError("CUDA error: out of memory"))
    browser = client(opening)
    why = "the memory could not be opened: RuntimeError: CUDA error: out of memory"
    assert browser.get("/api/state").json()["problem"] == why
    assert browser.get("/api/moments").json() == {"error": why}
    assert lines(browser.post("/api/ask", json={"question": "What?"})) == [{"error": why, "code": ""}]


def test_a_tab_that_is_closed_cancels_its_question(model: FakeModel) -> None:
    """Over ASGI itself: the request is disconnected while its answer is being given."""
    with backend_of(model) as (engine, backend):
        scenes(engine)
        app = build_app(opened(backend), "127.0.0.1", None)
        model.answering.shut()

        async def leave() -> None:
            sent = asyncio.Event()
            received = [{"type": "http.request", "body": b'{"question": "What?"}', "more_body": False}]

            async def receive() -> dict[str, Any]:
                if received:
                    return received.pop()
                await sent.wait()
                await asyncio.to_thread(model.answering.wait_reached)
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                sent.set()

            headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
            scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
                     "method": "POST", "path": "/api/ask", "raw_path": b"/api/ask", "root_path": "", "scheme": "http",
                     "query_string": b"", "headers": headers, "client": None, "server": None}  # fmt: skip
            await asyncio.wait_for(app(scope, receive, send), PATIENCE_S)

        asyncio.run(leave())
        model.answering.open()
        wait_until(lambda: engine.statistics.failed.get("CANCELLED") == 1)


def test_all_who_look_share_one_picture_and_none_is_sent_twice(model: FakeModel) -> None:
    decoded = []

    class Playing:
        """What plays, as far as the backend looks at it."""

        newest = frame(3, 200)
        error = ""
        ended = False

    shown = frame(3, 200)
    Playing.newest = type(shown)(shown.stamp_ns, lambda: decoded.append(1) or shown.image(), "eye")  # type: ignore[func-returns-value]
    with backend_of(model, Playing()) as (_, backend):  # type: ignore[arg-type]
        browser = client(opened(backend))
        with browser:
            first = browser.get("/api/camera")
            assert first.headers["content-type"] == "image/jpeg"
            assert (first.headers["fvs-stamp"], len(decoded)) == ("3.000000000", 1)
            again = browser.get("/api/camera", params={"after": "3.000000000"})
            assert (again.status_code, again.content) == (204, b"")
            assert len(decoded) <= 2
