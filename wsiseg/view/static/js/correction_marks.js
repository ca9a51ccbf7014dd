// @ts-check
/** Draw corrections in the colour of their class, over the map. */
import { pathOf, strokeSeen } from "./shapes.js";

const CHECKED = "#1f5fae";
const DELETED = "#4a5558";
/** @type {Record<string, number>} by kind; what counts more comes last, as in the labels that are learned */
const LEVELS = { reclassified: 0, deleted: 0, drawn: 1, checked: 2 };
const EARLIER = [10, 6]; // dashes, wide enough to show the colour

/** @template {import("./types.js").Correction} T @param {T[]} corrections @returns {T[]} */
const inOrder = (corrections) => [...corrections].sort((a, b) => LEVELS[a.kind] - LEVELS[b.kind]);

/** A line that stands out from an area of that colour. @param {number[]} color */
const darken = (color) => `rgb(${color.map((value) => Math.round(value * 0.6)).join(" ")})`;

/**
 * @param {CanvasRenderingContext2D} context
 * @param {import("./types.js").View} view
 * @param {import("./types.js").Scene} scene
 * @param {import("./types.js").Correction[]} corrections
 */
export function drawCorrections(context, view, scene, corrections) {
  for (const one of inOrder(corrections)) {
    const path = pathOf(view, one.rings);
    if (one.kind === "checked") {
      strokeSeen(context, path, CHECKED, 2, [8, 5]);
    } else if (one.kind === "deleted") {
      context.fillStyle = "#ffffffb0";
      context.fill(path, "evenodd");
      strokeSeen(context, path, DELETED, 1.5, [3, 3]);
    } else {
      const color = colorOf(scene, one);
      context.fillStyle = `rgb(${color.join(" ")} / 0.6)`;
      context.fill(path, "evenodd");
      strokeSeen(context, path, darken(color), 2);
    }
  }
}

/**
 * Those of an earlier run are dashed, and leave the map to be seen.
 * @param {CanvasRenderingContext2D} context
 * @param {import("./types.js").View} view
 * @param {import("./types.js").Scene} scene
 * @param {import("./types.js").Earlier[]} marks
 */
export function drawEarlier(context, view, scene, marks) {
  for (const one of inOrder(marks)) {
    strokeSeen(context, pathOf(view, one.rings), darken(colorOf(scene, one)), 3, EARLIER);
  }
}

/** @param {import("./types.js").Scene} scene @param {import("./types.js").Correction} one @returns {number[]} */
export function colorOf(scene, one) {
  if (one.kind === "checked") return [31, 95, 174];
  if (one.kind === "deleted") return [150, 158, 160];
  return scene.classes.find(({ name }) => name === one.class)?.color ?? one.color ?? [110, 110, 110];
}
