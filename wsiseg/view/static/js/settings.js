// @ts-check
/** What is shown and where, kept in the address so that it can be sent to somebody. */

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
  heat: false,
  heatKind: "confidence",
  heatOpacity: 0.7,
  heatLeast: 0,
  /** @type {Set<string>} names of classes that are switched off */
  hidden: new Set(),
};

const FLAGS = /** @type {const} */ (["map", "outlines", "heat"]);
const SHARES = /** @type {const} */ (["mapOpacity", "mapLeast", "heatOpacity", "heatLeast"]);

/** Take what the address says; what it does not say stays. */
export function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  const number = (/** @type {string} */ name) => {
    const value = Number.parseFloat(said.get(name) ?? "");
    return Number.isFinite(value) ? value : null;
  };
  settings.run = Math.max(0, Math.round(number("run") ?? settings.run));
  settings.slide = said.get("slide") ?? settings.slide;
  const beside = number("beside");
  settings.beside = beside === null ? null : Math.round(beside);
  const [x, y, um] = ["x", "y", "um"].map(number);
  settings.place = x !== null && y !== null && um !== null && um > 0 ? { x, y, um } : null;
  for (const name of FLAGS) if (said.has(name)) settings[name] = said.get(name) === "1";
  for (const name of SHARES) settings[name] = Math.min(1, Math.max(0, number(name) ?? settings[name]));
  settings.heatKind = said.get("score") ?? settings.heatKind;
  if (said.has("hidden")) settings.hidden = new Set(said.getAll("hidden").filter(Boolean));
}

/** @type {number|undefined} */
let timer;

/** Put the settings into the address, soon: a moving view changes them at every frame. */
export function writeAddress() {
  window.clearTimeout(timer);
  timer = window.setTimeout(() => history.replaceState(null, "", address()), 200);
}

/** The address that leads to what is shown. */
export function address() {
  const said = new URLSearchParams({ slide: settings.slide });
  if (settings.run) said.set("run", String(settings.run));
  if (settings.beside !== null) said.set("beside", String(settings.beside));
  if (settings.place) {
    said.set("x", settings.place.x.toFixed(1));
    said.set("y", settings.place.y.toFixed(1));
    said.set("um", settings.place.um.toPrecision(4));
  }
  for (const name of FLAGS) said.set(name, settings[name] ? "1" : "0");
  for (const name of SHARES) said.set(name, settings[name].toFixed(2));
  said.set("score", settings.heatKind);
  for (const name of settings.hidden) said.append("hidden", name);
  return `#${said}`;
}
