// @ts-check
/** Which of the things under a click is selected: the top one, and at each further click the next below. */
import { hoverAt } from "./api.js";
import { settings } from "./settings.js";
import { contains } from "./shapes.js";

/** @typedef {import("./types.js").Picked} Picked */
/** @typedef {import("./types.js").Correction} Correction */

const NEAR = 6; // screen pixels between clicks at one place
const DOUBLE_MS = 400; // the second click of a double click, which zooms, selects nothing else

/** Whether something selected is a drawn or checked area of this run. @param {Picked} one @returns {one is Correction} */
export const isArea = (one) => "kind" in one && !isEarlier(one);

/** Whether something selected is a correction of an earlier run, which is only looked at. @param {Picked} one @returns {one is import("./types.js").Earlier} */
export const isEarlier = (one) => "copy" in one;

/** Corrections of an earlier run at a point that are shown, the smallest first. @param {import("./pane.js").Pane} pane @param {number} x @param {number} y */
export function earlierAt({ earlier }, x, y) {
  if (!settings.earlier) return [];
  return earlier
    .filter(({ box: [x0, y0, x1, y1], rings }) => x >= x0 && x <= x1 && y >= y0 && y <= y1 && contains(rings, x, y))
    .sort((a, b) => a.mm2 - b.mm2);
}

/** Drawn and checked areas at a point, the smallest first: else nothing would lead to what lies in another. @param {Correction[]} corrections @param {number} x @param {number} y */
function areasAt(corrections, x, y) {
  return corrections
    .filter(({ kind, rings }) => ["drawn", "checked"].includes(kind) && contains(rings, x, y))
    .sort((a, b) => a.mm2 - b.mm2);
}

export class Picking {
  constructor() {
    this.last = { x: -Infinity, y: -Infinity, time: -Infinity };
  }

  /** @param {import("./pane.js").Pane} pane @param {number} x @param {number} y of the click, in frame pixels @returns {Promise<Picked|null>} */
  async choose(pane, x, y) {
    const time = performance.now();
    if (!pane.scene) return null;
    const answer = await hoverAt(pane.scene.id, x, y);
    const { last } = this;
    const earlier = earlierAt(pane, x, y);
    const pile = [
      ...areasAt(pane.corrections, x, y), ...earlier.filter(({ copy }) => copy),
      ...(answer?.region ? [answer.region] : []),
      ...earlier.filter(({ copy }) => !copy), // checked areas are large, and regions in them are looked for
    ];
    const again = Math.hypot(x - last.x, y - last.y) * (pane.view()?.scale ?? 1) < NEAR;
    const at = again ? pile.findIndex(({ id }) => id === pane.picked?.id) : -1;
    const step = at >= 0 && time - last.time < DOUBLE_MS ? 0 : 1;
    this.last = { x, y, time };
    return pile[(at + step) % pile.length] ?? null;
  }
}
