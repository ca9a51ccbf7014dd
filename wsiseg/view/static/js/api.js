// @ts-check
/** Requests to the server. */

/** @typedef {import("./types.js").Scene} Scene */

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 */
async function ask(path, options) {
  const answer = await fetch(path, options);
  if (answer.ok) return answer.json();
  const { error } = await answer.json().catch(() => ({})); // a fault of the server is plain text
  throw Object.assign(new Error(error || `the server answered ${answer.status}`), { status: answer.status });
}

/** @param {Record<string, string|number>} values */
const query = (values) => new URLSearchParams(Object.entries(values).map(([k, v]) => [k, String(v)]));

/** @returns {Promise<{runs: import("./types.js").Run[]}>} */
export const listSlides = () => ask("api/slides");

/** @param {string} id @returns {Promise<Scene>} */
export const openSlide = (id) => ask(`api/slides/${id}`);

/** @param {string} id @returns {Promise<{count: number, vertices: number}>} */
export const countRegions = (id) => ask(`api/slides/${id}/regions`);

/**
 * @param {string} id @param {number} index @param {number} tolerance
 * @returns {Promise<import("./types.js").Region>}
 */
export const readRegion = (id, index, tolerance) =>
  ask(`api/slides/${id}/regions/${index}?${query({ tolerance })}`);

/**
 * @param {string} id @param {string} order @param {number} rank @param {string[]} names
 * @returns {Promise<{count: number, rank: number, region: import("./types.js").Region|null}>}
 */
export function rankedRegion(id, order, rank, names) {
  const parameters = query({ order, rank });
  for (const name of names) parameters.append("class", name);
  return ask(`api/slides/${id}/ranked?${parameters}`);
}

/**
 * @param {string} id @param {number[]} box @param {number} tolerance @param {AbortSignal} signal
 * @returns {Promise<{over: boolean, regions: number, lines: [number, number, number[]][]}>}
 */
export const readOutlines = (id, [x0, y0, x1, y1], tolerance, signal) =>
  ask(`api/slides/${id}/outlines?${query({ x0, y0, x1, y1, tolerance })}`, { signal });

/**
 * @param {string} id @param {number} x @param {number} y @param {AbortSignal} [signal]
 * @returns {Promise<{class: string, confidence: number, region: import("./types.js").Region|null}|null>}
 */
export const hoverAt = (id, x, y, signal) =>
  ask(`api/slides/${id}/hover?${query({ x, y })}`, { signal });

/**
 * @param {string} id
 * @returns {Promise<{version: string, features: import("./types.js").Correction[], others: number, undoable: string[]}>}
 */
export const readCorrections = (id) => ask(`api/slides/${id}/corrections`);

/**
 * @param {string} id @param {object} order
 * @returns {Promise<import("./types.js").Change>}
 */
export const correct = (id, order) =>
  ask(`api/slides/${id}/corrections`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(order),
  });

/** @param {string} id @returns {Promise<{frames: {rank: number, box: number[]}[]}>} */
export const readFrames = (id) => ask(`api/slides/${id}/places`);

/** @param {Scene} scene @param {string} kind @param {number} zoom @param {number} col @param {number} row */
export function tileAddress(scene, kind, zoom, col, row) {
  const version = scene.layers[kind.split("-")[0]];
  return `tiles/${scene.id}/${kind}/${version}/${zoom}/${col}/${row}`;
}

/**
 * Read the values of a raster tile; null if it is empty.
 * @param {Scene} scene @param {string} kind @param {number} zoom @param {number} col
 * @param {number} row @param {AbortSignal} signal
 * @returns {Promise<Uint8Array|null>}
 */
export async function readTile(scene, kind, zoom, col, row, signal) {
  const answer = await fetch(tileAddress(scene, kind, zoom, col, row), { signal });
  if (answer.status === 204) return null;
  if (!answer.ok) throw new Error((await answer.json()).error);
  // Without colour management, as the screen's profile would change the values.
  const options = /** @type {ImageBitmapOptions} */ ({ colorSpaceConversion: "none" });
  const picture = await createImageBitmap(await answer.blob(), options);
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("the browser does not provide a canvas");
  context.drawImage(picture, 0, 0);
  picture.close();
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const values = new Uint8Array(canvas.width * canvas.height);
  for (let i = 0; i < values.length; i++) values[i] = data[4 * i];
  return values;
}
