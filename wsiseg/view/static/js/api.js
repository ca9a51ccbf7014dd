// @ts-check
/** Requests to the server. */

/** @typedef {import("./types.js").Scene} Scene */

const OUTDATED = 412; // the status that says that a map was made again

/** @type {Map<string, string>} version of the map that the page has of each slide */
const versions = new Map();
/** @type {(id: string) => void} */
let tellOutdated = () => {};
let command = "wsiseg view"; // that starts the server again

/** @param {(id: string) => void} listener  Called once when the map of a slide was made again. */
export const whenOutdated = (listener) => {
  tellOutdated = listener;
};

/** Whether an error says that the map was made again. @param {any} error */
export const isOutdated = (error) => error.status === OUTDATED;

/** Several answers may say that one version is outdated. @param {string} id @param {string} [version] */
function giveUp(id, version) {
  if (version === undefined || versions.get(id) !== version) return;
  versions.delete(id);
  tellOutdated(id);
}

/** @param {string} path @param {RequestInit} [options] */
async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (options?.signal?.aborted) throw error;
    throw new Error(`the viewer was stopped or cannot be reached. Start it again, then repeat this: \`${command}\``);
  }
}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 */
async function ask(path, options) {
  const answer = await reach(path, options);
  if (answer.ok) return answer.json();
  const { error } = await answer.json().catch(() => ({})); // a fault of the server is plain text
  throw Object.assign(new Error(error || `the server answered ${answer.status}`), { status: answer.status });
}

/**
 * Ask about a slide, and only about the map that the page has of it.
 * @param {string} id @param {string} rest  What follows the slide in the address.
 * @param {RequestInit & {headers?: Record<string, string>}} [options]
 * @returns {Promise<any>}
 */
async function askOf(id, rest, options = {}) {
  const version = versions.get(id);
  const headers = { ...options.headers, ...(version === undefined ? {} : { "If-Match": `"${version}"` }) };
  try {
    return await ask(`api/slides/${id}${rest}`, { ...options, headers });
  } catch (error) {
    if (isOutdated(error)) giveUp(id, version);
    throw error;
  }
}

/** @param {Record<string, string|number>} values */
const query = (values) => new URLSearchParams(Object.entries(values).map(([k, v]) => [k, String(v)]));

/** @returns {Promise<{runs: import("./types.js").Run[]}>} */
export async function listSlides() {
  const listed = await ask("api/slides");
  command = listed.command || command;
  return listed;
}

/** @param {string} id @returns {Promise<Scene>} */
export async function openSlide(id) {
  const scene = await ask(`api/slides/${id}`);
  versions.set(id, scene.version);
  return scene;
}

/** @param {string} id @returns {Promise<{count: number, vertices: number}>} */
export const countRegions = (id) => askOf(id, "/regions");

/**
 * @param {string} id @param {number} index @param {number} tolerance
 * @returns {Promise<import("./types.js").Region>}
 */
export const readRegion = (id, index, tolerance) =>
  askOf(id, `/regions/${index}?${query({ tolerance })}`);

/**
 * @param {string} id @param {string} order @param {number} rank @param {string[]} names
 * @returns {Promise<{count: number, rank: number, region: import("./types.js").Region|null}>}
 */
export function rankedRegion(id, order, rank, names) {
  const parameters = query({ order, rank });
  for (const name of names) parameters.append("class", name);
  return askOf(id, `/ranked?${parameters}`);
}

/**
 * @param {string} id @param {number[]} box @param {number} tolerance @param {AbortSignal} signal
 * @returns {Promise<{over: boolean, regions: number, lines: [number, number, number[]][]}>}
 */
export const readOutlines = (id, [x0, y0, x1, y1], tolerance, signal) =>
  askOf(id, `/outlines?${query({ x0, y0, x1, y1, tolerance })}`, { signal });

/**
 * @param {string} id @param {number} x @param {number} y @param {AbortSignal} [signal]
 * @returns {Promise<{class: string, confidence: number, region: import("./types.js").Region|null}|null>}
 */
export const hoverAt = (id, x, y, signal) =>
  askOf(id, `/hover?${query({ x, y })}`, { signal });

/**
 * @param {string} id
 * @returns {Promise<{version: string, features: import("./types.js").Correction[], others: number, undoable: string[]}>}
 */
export const readCorrections = (id) => askOf(id, "/corrections");

/**
 * @param {string} id @param {object} order
 * @returns {Promise<import("./types.js").Change>}
 */
export async function correct(id, order) {
  const version = versions.get(id);
  const changed = await askOf(id, "/corrections", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(order),
  });
  if (changed.outdated) giveUp(id, version);
  return changed;
}

/**
 * @param {string} id
 * @returns {Promise<{title: string, note: string, features: Omit<import("./types.js").Earlier, "box">[]}>}
 */
export const readEarlier = (id) => askOf(id, "/earlier");

/** @param {string} id @returns {Promise<{frames: {rank: number, box: number[]}[]}>} */
export const readFrames = (id) => askOf(id, "/places");

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
  const answer = await reach(tileAddress(scene, kind, zoom, col, row), { signal });
  if (answer.status === 204) return null;
  if (answer.status === OUTDATED) giveUp(scene.id, scene.version);
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
