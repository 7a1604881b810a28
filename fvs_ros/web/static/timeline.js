// The memory as a timeline: what it keeps of when, and how. The slider is for keyboards and screen readers as for mice.

import { byId, say, shape } from "./dom.js";
import { clear, pictureNear, show } from "./pictures.js";
import { count, kindsOf, seconds, whenAndWhere } from "./words.js";

const HEIGHT = 120;
const BASE = 84;
const ROUND = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];

export class Timeline {
  constructor(onChoice) {
    this.moments = [];
    this.rests = new Set();
    this.chosen = null;
    this.onChoice = onChoice;
    this.slider = byId("keyframe");
    this.track = byId("track");
    this.slider.addEventListener("input", () => this.choose(Number(this.slider.value)));
    this.track.addEventListener("click", (event) => this.chooseNearest(event));
    new ResizeObserver(() => this.draw()).observe(this.track);
  }

  /** Shows a memory's moments, in order of time; the one that was chosen stays chosen while it is kept. */
  update(moments, live) {
    const before = this.chosen === null ? null : this.moments[this.chosen]?.stamp;
    this.moments = moments;
    this.slider.disabled = moments.length === 0;
    this.slider.max = Math.max(0, moments.length - 1);
    const kept = moments.findIndex((moment) => moment.stamp === before);
    const last = moments.length - 1;
    const number = (kind) => moments.filter((moment) => moment[kind]).length;
    say(byId("timeline-summary"), moments.length === 0 ? "Nothing is in memory yet." :
      `${live ? "" : "As of the last answer: "}${count(moments.length, "keyframe")} of ${seconds(moments[0].from_s)}, ` +
      `${number("detail")} in full detail` + (number("recalled") ? `, ${number("recalled")} recalled` : ""));
    if (moments.length) this.choose(kept >= 0 ? kept : last, kept >= 0 || this.chosen === null ? before : undefined);
    this.draw();
  }

  /** Marks the moments that an answer rests on. */
  mark(moments) {
    this.rests = new Set(moments.map((moment) => moment.stamp));
    this.draw();
  }

  chooseNearest(event) {
    if (!this.moments.length) return;
    const box = this.track.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width;
    const gaps = this.moments.map((moment) => Math.abs(this.place(moment.age_s) - at));
    this.choose(gaps.indexOf(Math.min(...gaps)));
    this.slider.focus();
  }

  choose(index, before) {
    const moment = this.moments[index];
    const same = moment.stamp === before;
    this.chosen = index;
    this.slider.value = index;
    const words = `${whenAndWhere(moment)}: ${count(Math.round(moment.weight), "step")}` +
      (kindsOf(moment) ? `, ${kindsOf(moment)}` : "");
    this.slider.setAttribute("aria-valuetext", words);
    if (!same) say(byId("kept-caption"), words);
    const image = byId("kept-picture");
    image.alt = `Keyframe seen ${whenAndWhere(moment)}`;
    this.onChoice(moment);
    if (same) return;
    this.draw();
    pictureNear(moment).then((picture) => {
      if (this.moments[this.chosen]?.stamp !== moment.stamp) return;
      if (picture === null) clear(image);
      else show(image, picture.blob);
      say(byId("kept-caption"), `${words}${pictureWords(picture)}`);
    });
  }

  /** From 0, the oldest, to 1, the newest frame. */
  place(age) {
    const longest = Math.max(this.moments[0]?.from_s ?? 0, 1e-9);
    return 1 - age / longest;
  }

  draw() {
    const width = this.track.clientWidth;
    if (!width) return;
    const inner = width - 16;
    const x = (age) => 8 + this.place(age) * inner;
    const heaviest = Math.max(1, ...this.moments.map((moment) => moment.weight));
    const marks = this.moments.flatMap((moment, index) => {
      const kinds = ["synopsis", "detail", "window", "recalled"].filter((kind) => moment[kind]);
      const classes = [...kinds, this.rests.has(moment.stamp) ? "rests" : "", index === this.chosen ? "chosen" : ""];
      const height = 10 + 58 * Math.sqrt(moment.weight / heaviest);
      const left = x(moment.from_s);
      const span = shape("rect", { x: left, y: BASE - height, width: Math.max(2, x(moment.to_s) - left), height, rx: 1.5 });
      const group = shape("g", { class: classes.join(" ") }, span);
      const at = x(moment.age_s);
      group.append(shape("line", { x1: at, x2: at, y1: BASE - height, y2: BASE }));
      if (moment.detail) group.append(shape("circle", { cx: at, cy: BASE + 8, r: 4 }));
      if (moment.window) group.append(shape("path", { d: `M${at} ${BASE + 3}l5 5l-5 5l-5-5z`, class: "window" }));
      return [group];
    });
    const longest = this.moments[0]?.from_s ?? 0;
    const ticks = ages(longest, width / 110).map((age) => this.tick(age, x));
    // What is chosen, and what an answer rests on, in front.
    const rank = (group) => (group.matches(".chosen") ? 2 : group.matches(".rests") ? 1 : 0);
    marks.sort((one, other) => rank(one) - rank(other));
    this.track.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.track.replaceChildren(...ticks, ...marks);
  }

  tick(age, x) {
    const at = x(age);
    const anchor = at < 40 ? "start" : at > this.track.clientWidth - 40 ? "end" : "middle";
    const words = age === 0 ? "now" : `−${seconds(age)}`;
    return shape("g", { class: "tick" },
      shape("line", { x1: at, x2: at, y1: 8, y2: BASE + 14 }),
      shape("text", { x: anchor === "middle" ? at : anchor === "start" ? 4 : this.track.clientWidth - 4, y: HEIGHT - 6, "text-anchor": anchor }, words));
  }
}

/** Round ages from now to the oldest, about so many. */
function ages(longest, number) {
  const step = ROUND.find((one) => longest / one <= number) ?? 7 * 86400;
  return Array.from({ length: Math.floor(longest / step) + 1 }, (_, index) => index * step);
}

function pictureWords(picture) {
  if (picture === null) return "; no picture kept";
  const off = Math.abs(picture.offset);
  return off < 1 ? "" : `; picture of ${seconds(off)} ${picture.offset > 0 ? "later" : "before"}`;
}
