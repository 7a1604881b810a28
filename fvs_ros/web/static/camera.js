// The camera's newest picture: the next one is asked for when the last one is shown, a few a second, while it is in view.

import { getPicture, TokenNeeded } from "./api.js";
import { byId, say } from "./dom.js";
import { show } from "./pictures.js";
import { seconds } from "./words.js";

const PERIOD_MS = 250;
// Without a newer picture for so long, the last one is called old.
const STILL_S = 3;

export function setUpCamera() {
  const image = byId("camera-picture");
  let inView = true;
  new IntersectionObserver(([entry]) => { inView = entry.isIntersecting; }).observe(byId("camera"));
  let after = "";
  let shownAt = null;
  let reason = "no picture has come yet";

  const describe = () => {
    if (shownAt === null) return say(byId("camera-caption"), reason);
    const still = (performance.now() - shownAt) / 1000;
    const age = still < STILL_S ? "live" : `no newer picture for ${seconds(still)}`;
    image.alt = `What the camera sees, ${age}`;
    return say(byId("camera-caption"), age);
  };

  const look = async () => {
    if (document.visibilityState === "visible" && inView) {
      try {
        const picture = await getPicture("api/camera", { after });
        if (picture !== null) {
          after = picture.stamp;
          shownAt = performance.now();
          show(image, picture.blob);
        }
      } catch (error) {
        reason = error instanceof TokenNeeded ? "a token is needed" : error.message;
      }
      describe();
    }
    setTimeout(look, PERIOD_MS);
  };
  look();
}
