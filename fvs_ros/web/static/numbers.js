// Counters and latencies, and the line at the top that says how things are.

import { byId, element, say } from "./dom.js";
import { count, seconds } from "./words.js";

export function showState(state) {
  say(byId("status"), state.progress || (state.problem ? "has a problem" : "watching"));
  byId("status").dataset.kind = state.problem ? "bad" : state.progress ? "waiting" : "good";
  byId("problem").hidden = !state.problem;
  say(byId("problem"), state.problem ?? "");
  if (state.model === undefined) return;
  say(byId("model"), state.model);
  const { frames, questions, seconds: took } = state;
  const lost = frames.dropped + frames.late + frames.rejected;
  const rows = [
    ["memory", state.span_s === null ? "empty" : `${seconds(state.span_s)}, ${count(state.steps, "step")}`],
    ["slots", `${state.csm.join(" of ")} synopsis, ${state.dam.join(" of ")} detail`],
    ["stored scenes", count(state.segments, "scene")],
    ["frames in memory", `${frames.ingested.toLocaleString("en")} of ${frames.received.toLocaleString("en")}`],
    ["frames lost", lost ? `${frames.dropped} dropped, ${frames.late} late, ${frames.rejected} rejected` : "none", lost > 0],
    ["frame to memory", took.ingest ? seconds(took.ingest) : "–"],
    ["prefill", took.prefill ? seconds(took.prefill) : "–"],
    ["questions", `${questions.answered} of ${questions.asked} answered`, questions.failed > 0],
    ["first word, answer", took.answer ? `${seconds(took.first_token)}, ${seconds(took.answer)}` : "–"],
  ];
  const list = byId("counters");
  if (list.childElementCount !== rows.length) {
    list.replaceChildren(...rows.map(([name]) => element("div", {}, element("dt", {}, name), element("dd"))));
  }
  rows.forEach(([, value, bad], index) => {
    const cell = list.children[index].lastElementChild;
    say(cell, value);
    cell.className = bad ? "bad" : "";
  });
}

export function showOffline(why) {
  say(byId("status"), why);
  byId("status").dataset.kind = "bad";
}
