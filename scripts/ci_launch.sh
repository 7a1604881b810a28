#!/usr/bin/env bash
# README's lines for a robot, with the real `ros2`: the recording that ships is shown to the model that ships, a question
# is answered, and Ctrl-C ends both nodes. Exits with 1 where one of these fails, and prints what the nodes said.
#
#   LIMIT_S   longest wait for an answer (default 300)
set -eo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ./env.sh
set -u
LIMIT_S=${LIMIT_S:-300}
END_S=60
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST PYTHONUNBUFFERED=1
command -v ros2 >/dev/null || {
    echo "ci_launch.sh: there is no ros2 command: source a ROS 2 distribution, and run scripts/ci_build.sh" >&2
    exit 1
}

log=$(mktemp)
# A process group of its own, so that Ctrl-C reaches the launch and its nodes as it does in a terminal.
set -m
# The launch's own patience, 5 s until it terminates a node, is short for a loaded machine without a GPU.
ros2 launch fvs_ros replay.launch.py with_stream:=true loop:=true sigterm_timeout:="$END_S" sigkill_timeout:="$END_S" \
    >"$log" 2>&1 &
launch=$!
set +m
stop() { kill -KILL -- "-$launch" 2>/dev/null || true; }
trap stop EXIT

fail() {
    printf 'ci_launch.sh: %s. What the launch printed:\n' "$*" >&2
    cat "$log" >&2
    exit 1
}

answer=
for ((begin = SECONDS; SECONDS - begin < LIMIT_S; )); do
    kill -0 "$launch" 2>/dev/null || fail "the launch ended by itself"
    answer=$(timeout 60 ros2 service call /ask fvs_ros/srv/Ask "{question: 'Where is the green chair?'}" 2>&1 || true)
    # Until the model is loaded and a frame is in memory, the response says so.
    [[ $answer == *"success=True"* ]] && break
    sleep 1
done
[[ $answer =~ success=True.*answer=\'([^\']+)\' ]] || fail "no answer within $LIMIT_S s; the last response: $answer"
echo "answer: ${BASH_REMATCH[1]}"

kill -INT -- "-$launch"
for ((begin = SECONDS; SECONDS - begin < END_S + 10; )); do
    kill -0 "$launch" 2>/dev/null || break
    sleep 1
done
kill -0 "$launch" 2>/dev/null && fail "the launch did not end within $END_S s of Ctrl-C"
for node in stream_node replay_node; do
    grep -q "\[INFO\] \[$node-[0-9]*\]: process has finished cleanly" "$log" || fail "$node did not end cleanly"
done
echo "both nodes ended cleanly"
