// @ts-check
/** Outlines of the regions in view as lines; when zoomed out, the raster draws borders instead. */
import { readOutlines } from "./api.js";
import { pathOf } from "./shapes.js";

/** @typedef {import("./types.js").View} View */

const NEAREST = 0.5; // screen pixels per µm from which lines are requested
const MARGIN = 0.25; // fraction of the view to request around it
const WAIT_MS = 120;

export class Outlines {
  /** @param {import("./types.js").Scene} scene @param {() => void} changed */
  constructor(scene, changed) {
    this.scene = scene;
    this.changed = changed;
    /** @type {[number, number, number[]][]} region, label, points */
    this.lines = [];
    /** @type {number[]|null} */
    this.box = null;
    this.scale = 0;
    this.over = false;
    this.count = 0;
    this.busy = false;
    /** @type {AbortController|null} */
    this.controller = null;
    /** @type {number|undefined} */
    this.timer = undefined;
    this.error = "";
  }

  close() {
    window.clearTimeout(this.timer);
    this.controller?.abort();
  }

  /** @param {View} view */
  isNear(view) {
    return view.scale / this.scene.mpp >= NEAREST;
  }

  /** Whether lines are loaded for the whole view. @param {View} view */
  covers(view) {
    return this.isNear(view) && !this.over && !this.error && this.asked(view);
  }

  /** Whether the server has answered for the whole view. @param {View} view */
  asked(view) {
    if (!this.box) return false;
    const [x0, y0, x1, y1] = visibleBox(view, this.scene, 0);
    return x0 >= this.box[0] && y0 >= this.box[1] && x1 <= this.box[2] && y1 <= this.box[3]
      && view.scale < 2.1 * this.scale;
  }

  /** Request the lines of a view once it stops moving. @param {View} view */
  follow(view) {
    window.clearTimeout(this.timer);
    this.busy = this.isNear(view) && !this.asked(view);
    if (!this.busy) return;
    this.timer = window.setTimeout(() => this.read(view), WAIT_MS);
  }

  /** @param {View} view */
  async read(view) {
    this.controller?.abort();
    const controller = (this.controller = new AbortController());
    const box = visibleBox(view, this.scene, MARGIN);
    try {
      const answer = await readOutlines(this.scene.id, box, 0.5 / view.scale, controller.signal);
      Object.assign(this, { box, scale: view.scale, lines: answer.lines, over: answer.over, count: answer.regions, error: "" });
    } catch (error) {
      if (controller.signal.aborted) return;
      // Requested again when the view leaves the box, not at every frame.
      Object.assign(this, { box, scale: view.scale, error: String(/** @type {Error} */ (error).message) });
    }
    this.busy = false;
    this.changed();
  }

  /** @param {CanvasRenderingContext2D} context @param {View} view @param {Set<string>} hidden */
  draw(context, view, hidden) {
    /** @type {Map<number, number[][]>} */
    const byLabel = new Map();
    for (const [, label, points] of this.lines) {
      const group = byLabel.get(label);
      if (group) group.push(points);
      else byLabel.set(label, [points]);
    }
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    for (const [label, lines] of byLabel) {
      const shown = this.scene.classes[label];
      if (shown && hidden.has(shown.name)) continue;
      const color = shown ? shown.color.map((value) => Math.round(value * 0.72)) : [80, 80, 80];
      context.strokeStyle = `rgb(${color.join(" ")})`;
      context.stroke(pathOf(view, lines, false));
    }
  }
}

/** Return the visible part of the frame plus a margin. @param {View} view @param {import("./types.js").Scene} scene @param {number} margin */
export function visibleBox(view, scene, margin) {
  const [w, h] = [view.width / view.scale, view.height / view.scale];
  const [x, y] = [-view.x / view.scale, -view.y / view.scale];
  return [
    Math.max(0, x - margin * w), Math.max(0, y - margin * h),
    Math.min(scene.width, x + w + margin * w), Math.min(scene.height, y + h + margin * h),
  ];
}
