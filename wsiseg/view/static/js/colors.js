// @ts-check
/** Map values of tiles to colours on the screen, with tables of 256 entries. */

const STOPS = [
  [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
  [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37],
]; // viridis: perceptually uniform, and suitable for colour-blind people

/** @param {number} share 0..1 @returns {number[]} */
export function ramp(share) {
  const at = Math.min(0.9999, Math.max(0, share)) * (STOPS.length - 1);
  const low = Math.floor(at);
  return STOPS[low].map((value, i) => Math.round(value + (STOPS[low + 1][i] - value) * (at - low)));
}

/** Pack red, green, blue and alpha as in the memory of a canvas. @param {number[]} c @param {number} alpha */
const pack = ([r, g, b], alpha) => ((Math.round(alpha * 255) << 24) | (b << 16) | (g << 8) | r) >>> 0;

/**
 * Tables of fill and border colours by tile value: 0 is empty, else 1 + label.
 * @param {import("./types.js").ClassInfo[]} classes
 * @param {Set<string>} hidden
 * @param {number} opacity
 */
export function labelTables(classes, hidden, opacity) {
  const fill = new Uint32Array(256);
  const border = new Uint32Array(256);
  classes.forEach(({ name, color }, label) => {
    if (hidden.has(name)) return;
    fill[label + 1] = pack(color, opacity);
    border[label + 1] = pack(color.map((value) => value * 0.72), 0.95);
  });
  return { fill, border };
}

/** @param {number} opacity @param {number} least 0..1 */
export function heatTable(opacity, least) {
  const table = new Uint32Array(256);
  for (let value = 1; value < 256; value++) {
    if (value >= least * 255) table[value] = pack(ramp(value / 255), opacity);
  }
  return table;
}
