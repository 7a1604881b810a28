// Pictures, which come by fetch so that they bring the token, and are shown by an address of their own in this tab.

import { getPicture } from "./api.js";

/** Shows a blob in an image, and lets go of the one before. */
export function show(image, blob) {
  const before = image.src;
  image.src = URL.createObjectURL(blob);
  image.hidden = false;
  if (before.startsWith("blob:")) URL.revokeObjectURL(before);
}

export function clear(image) {
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
  image.hidden = true;
}

/** The stored picture of the scene at a moment, or the nearest in time, as {blob, offset}; null where none is kept. */
export async function pictureNear(moment) {
  try {
    return await getPicture("api/picture", { stamp: moment.stamp });
  } catch {
    return null;
  }
}

/** The blob of a JPEG in base64. */
export function blobOf(text) {
  return new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], { type: "image/jpeg" });
}
