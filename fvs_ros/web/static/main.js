// What asks for what, and how often. Nothing is asked for while nobody looks.

import { getJson, setToken, takeTokenFromAddress, TokenNeeded } from "./api.js";
import { setUpCamera } from "./camera.js";
import { byId } from "./dom.js";
import { PlacesMap } from "./map.js";
import { showOffline, showState } from "./numbers.js";
import { setUpQuestion } from "./question.js";
import { Timeline } from "./timeline.js";

const PERIOD_MS = 1000;

takeTokenFromAddress();
const map = new PlacesMap();
const timeline = new Timeline((moment) => map.choose(moment));
let shownVersion = null;

function askForToken() {
  const dialog = byId("token-dialog");
  if (!dialog.open) dialog.showModal();
}

byId("token-form").addEventListener("submit", () => {
  setToken(byId("token").value);
  byId("token").value = "";
});

async function showMoments() {
  const { moments, live } = await getJson("api/moments");
  timeline.update(moments, live);
  map.update(moments);
}

async function look() {
  if (document.visibilityState === "visible") {
    try {
      const state = await getJson("api/state");
      showState(state);
      if (state.version !== undefined && state.version !== shownVersion) {
        await showMoments();
        shownVersion = state.version;
      }
    } catch (error) {
      if (error instanceof TokenNeeded) askForToken();
      showOffline(error instanceof TokenNeeded ? "a token is needed" : "not connected");
    }
  }
  setTimeout(look, PERIOD_MS);
}

setUpQuestion((answer) => {
  timeline.mark(answer.moments);
  map.mark(answer.moments);
  shownVersion = null;
}, askForToken);
setUpCamera();
look();
