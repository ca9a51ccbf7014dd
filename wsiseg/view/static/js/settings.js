// @ts-check
/** The state of the view, stored in the address so that it can be shared. */

/** @typedef {import("./types.js").Place} Place */

export const settings = {
  run: 0,
  /** @type {string} name of the slide */
  slide: "",
  /** @type {number|null} the run beside it */
  beside: null,
  /** @type {Place|null} */
  place: null,
  map: true,
  mapOpacity: 0.45,
  mapLeast: 0,
  outlines: true,
  earlier: true,
  heat: false,
  heatKind: "confidence",
  heatOpacity: 0.7,
  heatLeast: 0,
  /** @type {Set<string>} names of classes that are switched off */
  hidden: new Set(),
};

const FLAGS = /** @type {const} */ (["map", "outlines", "heat", "earlier"]);
const SHARES = /** @type {const} */ (["mapOpacity", "mapLeast", "heatOpacity", "heatLeast"]);

/** Read settings from the address; keep those that it does not contain. */
export function readAddress() {
  window.clearTimeout(timer); // what was shown before is not of this address
  const parameters = new URLSearchParams(location.hash.slice(1));
  const number = (/** @type {string} */ name) => {
    const value = Number.parseFloat(parameters.get(name) ?? "");
    return Number.isFinite(value) ? value : null;
  };
  settings.run = Math.max(0, Math.round(number("run") ?? settings.run));
  settings.slide = parameters.get("slide") ?? settings.slide;
  const beside = number("beside");
  settings.beside = beside === null ? null : Math.round(beside);
  const [x, y, um] = ["x", "y", "um"].map(number);
  settings.place = x !== null && y !== null && um !== null && um > 0 ? { x, y, um } : null;
  for (const name of FLAGS) if (parameters.has(name)) settings[name] = parameters.get(name) === "1";
  for (const name of SHARES) settings[name] = Math.min(1, Math.max(0, number(name) ?? settings[name]));
  settings.heatKind = parameters.get("score") ?? settings.heatKind;
  if (parameters.has("hidden")) settings.hidden = new Set(parameters.getAll("hidden").filter(Boolean));
}

/** @type {number|undefined} */
let timer;

/** Write the settings to the address after a delay, as a moving view changes them at every frame. */
export function writeAddress() {
  window.clearTimeout(timer);
  timer = window.setTimeout(() => history.replaceState(null, "", address()), 200);
}

/** Begin an entry of the browser's history; the one before keeps what was shown. @param {() => void} change of the settings */
export function enterAddress(change) {
  window.clearTimeout(timer);
  history.replaceState(null, "", address());
  change();
  history.pushState(null, "", address());
}

/** Return the address of the current view. */
export function address() {
  const parameters = new URLSearchParams({ slide: settings.slide });
  if (settings.run) parameters.set("run", String(settings.run));
  if (settings.beside !== null) parameters.set("beside", String(settings.beside));
  if (settings.place) {
    parameters.set("x", settings.place.x.toFixed(1));
    parameters.set("y", settings.place.y.toFixed(1));
    parameters.set("um", settings.place.um.toPrecision(4));
  }
  for (const name of FLAGS) parameters.set(name, settings[name] ? "1" : "0");
  for (const name of SHARES) parameters.set(name, settings[name].toFixed(2));
  parameters.set("score", settings.heatKind);
  for (const name of settings.hidden) parameters.append("hidden", name);
  return `#${parameters}`;
}
