"""The page's routes on a running node over DDS: state, the camera beside it, an answer, and its timeline."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from conftest import require_ros
from needs import STARLETTE, needed

require_ros()
needed("starlette", STARLETTE)
from mcp_clients import opened
from node_harness import running_node
from starlette.testclient import TestClient

from fvs_ros.backends.node_backend import NodeBackend
from fvs_ros.web.app import build_app

NODE = "/robot1/stream_node"


def test_the_page_shows_and_asks_a_node(tmp_path: Path) -> None:
    names = ("-r", "__ns:=/robot1", "-r", "image:=/image")
    with running_node(tmp_path, *names, name=NODE, map_id="house") as (_, camera):
        camera.feed(1, 2, 3, 4)
        domain = camera.ros_node.context.get_domain_id()
        with closing(NodeBackend(NODE, domain)) as backend:
            browser = TestClient(build_app(opened(backend), "127.0.0.1", None), base_url="http://127.0.0.1")
            state = browser.get("/api/state").json()
            assert (state["steps"], state["span_s"], state["problem"]) == (2, 3, "")
            assert state["frames"]["ingested"] == 4
            assert browser.get("/api/moments").json() == {"moments": [], "live": False}
            # Nobody looked, so nobody subscribed; what comes from the first look on is shown.
            looked, second = backend.camera(), 4

            def pictured() -> bool:
                """Publishes and looks again and again: the first images come before DDS knows both sides."""
                nonlocal looked, second
                second += 1
                camera.publish(second)
                camera.spin_for(0.1)
                if looked.done() and looked.exception() is not None:
                    looked = backend.camera()
                return looked.done()

            camera.wait_for(pictured, "the camera's picture")
            assert looked.result().stamp_ns > 4_000_000_000
            assert browser.get("/api/camera").headers["content-type"] == "image/jpeg"
            asked = browser.post("/api/ask", json={"question": "What do you see?"})
            events = [json.loads(line) for line in asked.text.splitlines()]
            answer = events[-1]["answer"]
            assert "".join(event["token"] for event in events[:-1]) == answer["text"]
            shown = browser.get("/api/moments").json()
            assert not shown["live"]
            assert shown["moments"]
            assert any(moment["detail"] for moment in shown["moments"])
            assert {moment["stamp"] for moment in answer["moments"]} <= {one["stamp"] for one in shown["moments"]}
