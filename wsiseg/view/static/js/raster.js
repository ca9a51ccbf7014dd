// @ts-check
/**
 * A raster layer: tiles of values, coloured in the browser and drawn without interpolation.
 *
 * Changes of colours, visibility, opacity and thresholds need no new tiles. While a tile is loading,
 * part of a coarser one is shown instead.
 */
import { readTile } from "./api.js";

/** @typedef {import("./types.js").Scene} Scene */
/** @typedef {import("./types.js").View} View */
/** @typedef {{zoom: number, col: number, row: number, key: string}} Spot */
/**
 * @typedef {object} Style
 * @property {string} key  Changes whenever the style changes.
 * @property {string[]} kinds  Layers whose tiles are needed.
 * @property {(values: (Uint8Array|null)[], out: Uint32Array, side: number) => void} paint
 */

const MAX_REQUESTS = 6;
const MAX_VALUES = 300;
const MAX_PAINTED = 90;

export class RasterLayer {
  /** @param {Scene} scene @param {() => void} changed  called when more can be drawn */
  constructor(scene, changed) {
    this.scene = scene;
    this.changed = changed;
    /** @type {Map<string, Uint8Array|null>} */
    this.values = new Map();
    /** @type {Map<string, {style: string, canvas: OffscreenCanvas|null}>} */
    this.painted = new Map();
    /** @type {Map<string, AbortController>} */
    this.waiting = new Map();
    /** @type {string[]} */
    this.failed = [];
    this.error = "";
  }

  close() {
    for (const one of this.waiting.values()) one.abort();
    this.waiting.clear();
  }

  get idle() {
    return this.waiting.size === 0;
  }

  /** @param {View} view @returns {number} */
  zoomFor(view) {
    const wanted = Math.ceil(Math.log2(1 / (view.scale * devicePixelRatio)));
    return Math.min(this.scene.coarsest, Math.max(this.scene.finest, wanted));
  }

  /** @param {CanvasRenderingContext2D} context @param {View} view @param {Style} style */
  draw(context, view, style) {
    const zoom = this.zoomFor(view);
    const spots = this.spots(view, zoom);
    context.imageSmoothingEnabled = false;
    for (const spot of spots) {
      if (!this.drawSpot(context, view, style, spot)) this.drawCoarser(context, view, style, spot);
    }
    this.fetch(spots, style.kinds);
  }

  /** Return the value at a point of the frame, if its tile is loaded. @param {string} kind @param {View} view @param {number} x @param {number} y */
  valueAt(kind, view, x, y) {
    const { tile } = this.scene;
    for (let zoom = this.zoomFor(view); zoom <= this.scene.coarsest; zoom++) {
      const [px, py] = [x / 2 ** zoom, y / 2 ** zoom];
      const [col, row] = [Math.floor(px / tile), Math.floor(py / tile)];
      const values = this.values.get(`${kind} ${zoom} ${col} ${row}`);
      if (values) return values[Math.floor(py - row * tile) * tile + Math.floor(px - col * tile)];
      if (values === null) return 0;
    }
    return undefined;
  }

  /** @param {View} view @param {number} zoom @returns {Spot[]} nearest to the centre first */
  spots(view, zoom) {
    const side = this.scene.tile * 2 ** zoom * view.scale;
    const across = Math.ceil(this.scene.width / (this.scene.tile * 2 ** zoom));
    const down = Math.ceil(this.scene.height / (this.scene.tile * 2 ** zoom));
    const spots = [];
    for (let row = Math.max(0, Math.floor(-view.y / side)); row < down && view.y + row * side < view.height; row++) {
      for (let col = Math.max(0, Math.floor(-view.x / side)); col < across && view.x + col * side < view.width; col++) {
        spots.push({ zoom, col, row, key: `${zoom} ${col} ${row}` });
      }
    }
    const middle = (/** @type {Spot} */ s) =>
      Math.hypot(view.x + (s.col + 0.5) * side - view.width / 2, view.y + (s.row + 0.5) * side - view.height / 2);
    return spots.sort((a, b) => middle(a) - middle(b));
  }

  /** @param {CanvasRenderingContext2D} context @param {View} view @param {Style} style @param {Spot} spot */
  drawSpot(context, view, style, spot) {
    const canvas = this.paint(style, spot);
    if (canvas === undefined) return false;
    if (canvas) context.drawImage(canvas, ...this.square(view, spot));
    return true;
  }

  /** @param {CanvasRenderingContext2D} context @param {View} view @param {Style} style @param {Spot} spot */
  drawCoarser(context, view, style, spot) {
    for (let up = 1; spot.zoom + up <= this.scene.coarsest; up++) {
      const parts = 2 ** up;
      const [col, row, zoom] = [Math.floor(spot.col / parts), Math.floor(spot.row / parts), spot.zoom + up];
      const canvas = this.paint(style, { zoom, col, row, key: `${zoom} ${col} ${row}` });
      if (canvas === undefined) continue;
      const side = this.scene.tile / parts;
      const from = [(spot.col - col * parts) * side, (spot.row - row * parts) * side];
      if (canvas) context.drawImage(canvas, from[0], from[1], side, side, ...this.square(view, spot));
      return;
    }
  }

  /** Return the position of a tile, rounded to device pixels to avoid seams. @param {View} view @param {Spot} spot @returns {[number, number, number, number]} */
  square(view, spot) {
    const side = this.scene.tile * 2 ** spot.zoom * view.scale;
    const snap = (/** @type {number} */ at) => Math.round(at * devicePixelRatio) / devicePixelRatio;
    const [left, top] = [snap(view.x + spot.col * side), snap(view.y + spot.row * side)];
    return [left, top, snap(view.x + (spot.col + 1) * side) - left, snap(view.y + (spot.row + 1) * side) - top];
  }

  /** Return the coloured tile, null if it is empty, undefined if it is not loaded. @param {Style} style @param {Spot} spot */
  paint(style, spot) {
    const cached = this.painted.get(spot.key);
    if (cached && cached.style === style.key) return cached.canvas;
    const values = style.kinds.map((kind) => this.values.get(`${kind} ${spot.key}`));
    if (values.includes(undefined)) return undefined;
    const canvas = values[0] ? this.colour(style, /** @type {(Uint8Array|null)[]} */ (values)) : null;
    this.painted.delete(spot.key);
    this.painted.set(spot.key, { style: style.key, canvas });
    trim(this.painted, MAX_PAINTED);
    return canvas;
  }

  /** @param {Style} style @param {(Uint8Array|null)[]} values */
  colour(style, values) {
    const side = this.scene.tile;
    const canvas = new OffscreenCanvas(side, side);
    const context = canvas.getContext("2d");
    if (!context) throw new Error("the browser does not provide a canvas");
    const picture = context.createImageData(side, side);
    style.paint(values, new Uint32Array(picture.data.buffer), side);
    context.putImageData(picture, 0, 0);
    return canvas;
  }

  /** Request missing tiles, and abort requests for tiles out of view. @param {Spot[]} spots @param {string[]} kinds */
  fetch(spots, kinds) {
    const wanted = new Map();
    for (const spot of spots) for (const kind of kinds) wanted.set(`${kind} ${spot.key}`, { kind, spot });
    for (const [key, controller] of this.waiting) {
      if (wanted.has(key)) continue;
      controller.abort();
      this.waiting.delete(key);
    }
    for (const [key, { kind, spot }] of wanted) {
      if (this.waiting.size >= MAX_REQUESTS) break;
      if (!this.values.has(key) && !this.waiting.has(key) && !this.failed.includes(key)) this.read(key, kind, spot);
    }
  }

  /** @param {string} key @param {string} kind @param {Spot} spot */
  async read(key, kind, spot) {
    const controller = new AbortController();
    this.waiting.set(key, controller);
    try {
      const values = await readTile(this.scene, kind, spot.zoom, spot.col, spot.row, controller.signal);
      this.values.set(key, values);
      trim(this.values, MAX_VALUES);
    } catch (error) {
      if (controller.signal.aborted) return;
      this.failed.push(key);
      this.error = /** @type {Error} */ (error).message;
    }
    this.waiting.delete(key);
    this.changed();
  }
}

/** Drop the oldest entries. @param {Map<string, any>} map @param {number} limit */
function trim(map, limit) {
  for (const key of map.keys()) {
    if (map.size <= limit) return;
    map.delete(key);
  }
}

/**
 * Fill `out` with the colours of labels; pixels with a different neighbour get the border colour.
 * @param {Uint8Array} labels @param {Uint8Array|null} confidence @param {number} least
 * @param {Uint32Array} fill @param {Uint32Array} border @param {boolean} edges
 * @param {Uint32Array} out @param {number} side
 */
export function paintLabels(labels, confidence, least, fill, border, edges, out, side) {
  for (let i = 0; i < out.length; i++) {
    const value = labels[i];
    if (value === 0 || (least > 0 && (confidence ? confidence[i] : 0) < least)) continue;
    const x = i % side;
    const edge = edges && (
      (x > 0 && labels[i - 1] !== value) || (x < side - 1 && labels[i + 1] !== value) ||
      (i >= side && labels[i - side] !== value) || (i < out.length - side && labels[i + side] !== value));
    out[i] = edge ? border[value] : fill[value];
  }
}
