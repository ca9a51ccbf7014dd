// @ts-check
/** Draw the frames of suggested places: dark dashes on yellow, which neither stains nor corrections have. */
import { boxPath } from "./shapes.js";

const UNDER = "#ffe14d";
const DASHES = "#1d2629";
const DONE = "#5a676b";

/**
 * @param {CanvasRenderingContext2D} context
 * @param {import("./types.js").View} view
 * @param {import("./types.js").Frame[]} frames
 */
export function drawPlaces(context, view, frames) {
  for (const { box, labelled, current } of frames) {
    const path = boxPath(view, box);
    const width = current ? 2.5 : 1.25;
    context.lineJoin = "miter";
    stroke(context, path, labelled ? "#ffffffb0" : UNDER, width + (current ? 3 : 1.5), []);
    stroke(context, path, labelled ? DONE : DASHES, width, [5, 5]);
  }
}

/** @param {CanvasRenderingContext2D} context @param {Path2D} path @param {string} color @param {number} width @param {number[]} dash */
function stroke(context, path, color, width, dash) {
  context.setLineDash(dash);
  context.strokeStyle = color;
  context.lineWidth = width;
  context.stroke(path);
  context.setLineDash([]);
}
