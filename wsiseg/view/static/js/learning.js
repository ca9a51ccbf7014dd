// @ts-check
/** The command that learns from what was corrected, to be copied. */
import { byId } from "./dom.js";

/** @param {import("./types.js").Run} run */
export function offerLearning({ learn, slides }) {
  for (const code of document.querySelectorAll(".learn code")) code.textContent = learn;
  byId("learn").hidden = !slides.some(({ corrected }) => corrected);
}
