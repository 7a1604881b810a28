// Places on a small map, in the coordinate frame that most of them have: x to the right, y up, as in RViz.

import { byId, say, shape } from "./dom.js";
import { count } from "./words.js";

const SIZE = 300;
const MARGIN = 28;

export class PlacesMap {
  constructor() {
    this.places = [];
    this.rests = [];
    this.chosen = null;
    this.svg = byId("map");
  }

  update(moments) {
    this.places = placed(moments);
    this.draw();
  }

  /** Numbers the moments that an answer rests on, in their order. */
  mark(moments) {
    this.rests = moments;
    this.draw();
  }

  choose(moment) {
    this.chosen = moment.place;
    this.draw();
  }

  draw() {
    const shown = this.places;
    byId("places").hidden = shown.length === 0;
    if (!shown.length) return;
    const frame = shown[0].place.frame;
    const inFrame = (place) => place !== null && place.frame === frame;
    const marked = this.rests.map((moment, index) => ({ place: moment.place, number: index + 1 })).filter(({ place }) => inFrame(place));
    const all = [...shown, ...marked].map(({ place }) => place);
    const xs = all.map(({ x }) => x);
    const ys = all.map(({ y }) => y);
    const [left, right, bottom, top] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const metres = Math.max(right - left, top - bottom, 1);
    const scale = (SIZE - 2 * MARGIN) / metres;
    const at = ({ x, y }) => [SIZE / 2 + (x - (left + right) / 2) * scale, SIZE / 2 - (y - (bottom + top) / 2) * scale];
    const path = shape("polyline", { class: "path", points: shown.map(({ place }) => at(place).join(",")).join(" ") });
    const dots = shown.map(({ place }) => {
      const [cx, cy] = at(place);
      return shape("circle", { class: "place", cx, cy, r: 3 });
    });
    const here = shown.at(-1).place;
    const parts = [path, ...dots, this.arrow(here, at)];
    if (inFrame(this.chosen)) {
      const [cx, cy] = at(this.chosen);
      parts.push(shape("circle", { class: "chosen", cx, cy, r: 8 }));
    }
    parts.push(...numbered(marked, at), ...bar(metres, scale));
    this.svg.setAttribute("viewBox", `0 0 ${SIZE} ${SIZE}`);
    this.svg.replaceChildren(...parts);
    const words = `${count(shown.length, "place")} in ${frame}, the robot at ${here.x.toFixed(1)}, ${here.y.toFixed(1)} m`;
    const rests = marked.length ? `; numbers are the moments of the answer` : "";
    this.svg.setAttribute("aria-label", `Map of ${words}${rests}`);
    say(byId("map-caption"), `${words}${rests}`);
  }

  arrow(place, at) {
    const [x, y] = at(place);
    const degrees = (-place.heading * 180) / Math.PI;
    return shape("path", { class: "here", d: "M10 0L-7 6.5L-3.5 0L-7-6.5Z", transform: `translate(${x} ${y}) rotate(${degrees})` });
  }
}

/** Moments with a place, in the frame of the newest one. */
function placed(moments) {
  const known = moments.filter(({ place }) => place !== null);
  return known.filter(({ place }) => place.frame === known.at(-1).place.frame);
}

/** Numbers of moments; those of one spot in one mark. */
function numbered(marked, at) {
  const spots = new Map();
  for (const { place, number } of marked) {
    const [x, y] = at(place).map(Math.round);
    const key = `${x} ${y}`;
    spots.set(key, { x, y, numbers: [...(spots.get(key)?.numbers ?? []), number] });
  }
  return [...spots.values()].map(({ x, y, numbers }) => {
    const words = numbers.join(" ");
    const width = 16 + 7 * (words.length - 1);
    return shape("g", { class: "number", transform: `translate(${x} ${y})` },
      shape("rect", { x: -width / 2, y: -8, width, height: 16, rx: 8 }),
      shape("text", { y: 4, "text-anchor": "middle" }, words));
  });
}

/** A bar of a round number of metres. */
function bar(metres, scale) {
  const power = 10 ** Math.floor(Math.log10(metres / 2));
  const length = [5, 2, 1].map((digit) => digit * power).find((one) => one <= metres / 2);
  const y = SIZE - 8;
  return [
    shape("path", { class: "bar", d: `M8 ${y - 4}v4h${length * scale}v-4` }),
    shape("text", { class: "bar", x: 14 + length * scale, y }, `${length} m`),
  ];
}
