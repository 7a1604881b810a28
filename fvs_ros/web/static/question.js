// The question box: tokens as they come, then the answer, how sure it is, and what it rests on.

import { ask, TokenNeeded } from "./api.js";
import { byId, element, say } from "./dom.js";
import { blobOf, clear, show } from "./pictures.js";
import { count, percent, seconds, whenAndWhere } from "./words.js";

const text = byId("answer-text");

/** Sets up the box. `onAnswer` is called with each answer, `onToken` where a token is needed. */
export function setUpQuestion(onAnswer, onToken) {
  let running = null;
  const send = byId("send");
  const cancel = byId("cancel");

  const begin = async (question) => {
    running?.abort();
    const own = new AbortController();
    running = own;
    cancel.hidden = false;
    begun(question);
    let ended = false;
    try {
      await ask(question, (event) => {
        if (running !== own) return;
        ended ||= "answer" in event || "error" in event;
        tell(event, onAnswer);
      }, own.signal);
      if (!ended && running === own) fail("the connection ended before the answer was complete; ask again");
    } catch (error) {
      if (running !== own) return;
      if (error instanceof TokenNeeded) onToken();
      fail(own.signal.aborted ? "cancelled" : error.message);
    } finally {
      if (running === own) {
        running = null;
        cancel.hidden = true;
        text.removeAttribute("aria-busy");
      }
    }
  };

  byId("ask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const question = byId("question").value.trim();
    if (question) begin(question);
  });
  const stop = () => {
    if (running === null) return;
    // The button goes away, and would take the focus with it.
    if (document.activeElement === cancel) byId("question").focus();
    running.abort();
  };
  cancel.addEventListener("click", stop);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") stop();
  });
  send.disabled = false;
}

function begun(question) {
  byId("answer").hidden = false;
  byId("answer-facts").hidden = true;
  byId("evidence").hidden = true;
  forget(byId("moments"));
  say(byId("asked"), question);
  text.className = "waiting";
  // A screen reader reads the whole answer once, not its tokens.
  text.setAttribute("aria-busy", "true");
  say(text, "…");
}

function forget(list) {
  for (const image of list.querySelectorAll("img")) clear(image);
  list.replaceChildren();
}

function fail(why) {
  text.className = "failed";
  say(text, why);
}

function tell(event, onAnswer) {
  if ("waiting" in event) {
    say(text, `waiting: ${event.waiting}`);
  } else if ("token" in event) {
    say(text, text.className === "coming" ? text.textContent + event.token : event.token);
    text.className = "coming";
  } else if ("error" in event) {
    fail(event.error);
  } else if ("answer" in event) {
    complete(event.answer);
    onAnswer(event.answer);
  }
}

function complete(answer) {
  text.className = answer.not_seen ? "not-seen" : "complete";
  say(text, answer.text || "(an empty answer)");
  const sure = answer.calibrated ? "Right in" : "Probability of these words, not calibrated:";
  say(byId("sure-text"), `${answer.not_seen ? "Says that it was not seen. " : ""}${sure} ${percent(answer.confidence)}` +
    (answer.calibrated ? " of such answers" : ""));
  byId("sure").value = answer.confidence;
  const from = answer.recalled ? `${count(answer.recalled, "recalled scene")} of ` : "";
  say(byId("answer-timing"), `From ${from}${seconds(answer.span_s)} of memory. First word after ` +
    `${seconds(answer.first_token_s)}, complete after ${seconds(answer.total_s)}.`);
  byId("answer-facts").hidden = false;
  byId("evidence").hidden = answer.moments.length === 0;
  byId("moments").replaceChildren(...answer.moments.map(card));
}

function card(moment, index) {
  const image = element("img", { alt: `Picture of moment ${index + 1}, seen ${whenAndWhere(moment)}` });
  if (moment.picture !== null) show(image, blobOf(moment.picture));
  const frame = element("div", { class: "picture" }, moment.picture === null ? "no picture kept" : image);
  const facts = [element("strong", {}, `${index + 1}. ${whenAndWhere(moment)}`)];
  if (moment.relevance !== null) {
    const meter = element("meter", { min: 0, max: 1, value: moment.relevance, "aria-label": `Relevance of moment ${index + 1}` });
    facts.push(element("span", { class: "relevance" }, meter, ` ${percent(moment.relevance)}`));
  }
  const lasted = moment.from_s - moment.to_s;
  const stands = lasted > 0 ? `${seconds(lasted)}, ` : "";
  facts.push(element("span", { class: "quiet" }, `stands for ${stands}${count(Math.round(moment.weight), "step")}`));
  return element("li", {}, frame, element("div", { class: "facts" }, ...facts));
}
