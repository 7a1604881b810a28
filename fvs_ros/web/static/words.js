// Numbers as people read them.

export function seconds(value) {
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 120) return `${value < 10 ? Math.round(value * 10) / 10 : Math.round(value)} s`;
  if (value < 7200) return `${value < 600 ? Math.round(value / 6) / 10 : Math.round(value / 60)} min`;
  if (value < 172800) return `${Math.round(value / 360) / 10} h`;
  return `${Math.round(value / 8640) / 10} d`;
}

export function percent(value) {
  // No probability is a certainty.
  return value < 1 && value >= 0.995 ? "over 99 %" : `${Math.round(value * 100)} %`;
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** How a memory shows a moment. */
export function kindsOf(moment) {
  const kinds = [];
  if (moment.window) kinds.push("newest steps");
  if (moment.detail) kinds.push("full detail");
  if (moment.synopsis) kinds.push("synopsis");
  if (moment.recalled) kinds.push("recalled");
  return kinds.join(", ");
}

/** When and where a moment was seen, in one line. */
export function whenAndWhere(moment) {
  return [moment.age, moment.distance].filter(Boolean).join(", ");
}
