// What the server is asked. The token, where there is one, stays in this tab.

const TOKEN = "fvs-token";

/** The server wants a token, or another one. */
export class TokenNeeded extends Error {}

/** The server's reason for refusing something, in words. */
export class Refused extends Error {}

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token.trim());
}

/** Takes a token out of the address, as in `#token=...`, so that it is in no history and no picture of the screen. */
export function takeTokenFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given !== null) {
    setToken(given);
    history.replaceState(null, "", location.pathname);
  }
}

async function request(path, options = {}) {
  const headers = new Headers(options.headers);
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const response = await fetch(path, { ...options, headers, cache: "no-store" });
  if (response.status === 401) throw new TokenNeeded();
  if (!response.ok) {
    const told = await response.json().catch(() => ({}));
    throw new Refused(told.error ?? `the server answers ${response.status}`);
  }
  return response;
}

export async function getJson(path) {
  return (await request(path)).json();
}

/** A picture as {blob, stamp, offset}, the seconds from the wanted stamp to its own; null where nothing newer is there. */
export async function getPicture(path, parameters) {
  const response = await request(`${path}?${new URLSearchParams(parameters)}`);
  if (response.status === 204) return null;
  if (response.headers.get("Content-Type") !== "image/jpeg") throw new Refused((await response.json()).error);
  const stamp = response.headers.get("Fvs-Stamp");
  return { blob: await response.blob(), stamp, offset: Number(response.headers.get("Fvs-Offset")) };
}

/** Asks, and calls `onEvent` with each line of the answer; aborting the signal cancels the question. */
export async function ask(question, onEvent, signal) {
  const response = await request("api/ask", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ question }),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) onEvent(JSON.parse(line));
  }
}
