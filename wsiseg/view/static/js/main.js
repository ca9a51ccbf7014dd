// @ts-check
/** Set up the page: open slides in panes, and connect the modules. */
import { countRegions, listSlides, openSlide, rankedRegion, readRegion } from "./api.js";
import { Corrections } from "./corrections.js";
import { byId, make } from "./dom.js";
import { Drawing } from "./draw.js";
import { Hover } from "./hover.js";
import { bindKeys } from "./keys.js";
import { Layers } from "./layers.js";
import { Pane } from "./pane.js";
import { Picking } from "./picking.js";
import { Places } from "./places.js";
import { readAddress, settings, writeAddress } from "./settings.js";
import { SlideList } from "./slides.js";
import { saveSnapshot } from "./snapshot.js";

/** @typedef {import("./types.js").Slide} Slide */

/** @type {import("./types.js").Run[]} */
let runs = [];
/** @type {Pane[]} corrections apply to the first */
const panes = [];
/** @type {Pane|null} the pane that the others follow */
let leader = null;
let rank = { order: "", at: 0 };
let choices = 0; // of what is selected: an earlier one that is answered later does not count

const hover = new Hover();
const layers = new Layers(() => redraw());
const picking = new Picking();
const list = new SlideList((slide) => show(slide));
const corrections = new Corrections({ tell, saved, shown: () => places.show(), open: showById, select: (one) => choose(panes[0], one) });
const places = new Places(corrections, showById, showBox, tell);
const drawing = new Drawing((pane, points) => {
  if (pane !== panes[0]) return tell("Only the map on the left can be corrected: draw there.");
  corrections.draw(points);
});

/** Show a message under the toolbar until the next one. @param {string} text @param {boolean} [bad] */
function tell(text, bad = false) {
  const notice = byId("notice");
  notice.textContent = text;
  notice.hidden = !text;
  notice.classList.toggle("bad", bad);
}

function redraw() {
  for (const pane of panes) pane.redraw();
  writeAddress();
}

/** @returns {Pane} */
function addPane() {
  const pane = new Pane(byId("panes"), { opened: follow, moved, picked: pick, drawn });
  pane.element.addEventListener("pointerenter", () => (leader = pane));
  hover.watch(pane);
  drawing.watch(pane);
  pane.element.classList.toggle("drawing", drawing.tool !== "pan");
  panes.push(pane);
  return pane;
}

/** Move all panes to the leader's position once a slide is open. */
function follow() {
  const pane = leader ?? panes[0];
  if (pane) moved(pane);
}

/** @param {Pane} pane */
function moved(pane) {
  if (pane !== (leader ?? panes[0])) return;
  const place = pane.place();
  if (!place) return;
  settings.place = place;
  for (const other of panes) if (other !== pane) other.goTo(place, true);
  writeAddress();
}

/** @param {Pane} pane */
function drawn(pane) {
  if (pane !== panes[0]) return;
  const { outlines, scene } = pane;
  const view = pane.view();
  if (!outlines || !scene || !view) return;
  let text = "";
  if (settings.outlines && settings.map && scene.layers.labels && outlines.isNear(view)) {
    if (outlines.error) text = outlines.error;
    else if (outlines.busy) text = "Reading outlines …";
    else if (outlines.over) text = "Too many outlines to draw: showing the borders of the raster";
    else text = `${outlines.count.toLocaleString("en")} regions in view`;
  }
  const error = (settings.map && pane.map?.error) || (settings.heat && pane.heat?.error);
  if (error) text = `Something could not be shown: ${error}`;
  const state = byId("state");
  if (state.textContent !== text) state.textContent = text;
  document.body.dataset.settled = String(Boolean(
    !outlines.busy && (!settings.map || pane.map?.idle) && (!settings.heat || pane.heat?.idle)));
}

/** @param {Slide} slide @param {boolean} [stay] at the position in the address */
async function show(slide, stay = false) {
  const place = stay ? settings.place : null;
  settings.slide = slide.name;
  list.mark(slide.id);
  Object.assign(byId("slide-name"), { textContent: slide.name, title: slide.name });
  try {
    const scene = await openSlide(slide.id);
    if (settings.slide !== slide.name) return;
    tell([scene.note && `This slide ${scene.note}.`, scene.missing && `Shown from the run's own copy: ${scene.missing}.`]
      .filter(Boolean).join(" "));
    list.setColors(scene.classes);
    layers.setScene(scene);
    const pane = panes[0] ?? addPane();
    leader = pane;
    rank = { order: "", at: 0 };
    settings.place = place;
    pane.open(scene, place);
    corrections.show();
    await Promise.all([showBeside(slide), corrections.open(pane), places.follow(pane), count(scene)]);
  } catch (error) {
    tell(/** @type {Error} */ (error).message, true);
  }
  writeAddress();
}

/** @param {string} id */
async function showById(id) {
  const slide = list.slides.find((one) => one.id === id);
  if (slide) await show(slide);
}

/** Show a box in all panes. @param {number[]} box */
function showBox(box) {
  leader = panes[0];
  leader?.showBox(box);
}

/** @param {import("./types.js").Scene} scene */
async function count(scene) {
  const legend = byId("legend").previousElementSibling;
  if (!scene.layers.labels || !legend) return;
  const title = (/** @type {string} */ text) => legend.replaceChildren("Classes", make("span", {}, text));
  title("reading regions …");
  const { count: regions } = await countRegions(scene.id);
  if (panes[0]?.scene === scene) title(`${regions.toLocaleString("en")} regions`);
}

/** Show the same slide of the run to compare with. @param {Slide} slide */
async function showBeside(slide) {
  const other = settings.beside === null ? undefined : runs[settings.beside];
  const match = other?.slides.find(({ name, viewable }) => name === slide.name && viewable);
  if (!match) {
    panes.splice(1).forEach((pane) => pane.destroy());
    if (other) tell(`${other.title} contains no map of ${slide.name}`);
  } else {
    const scene = await openSlide(match.id);
    const pane = panes[1] ?? addPane();
    pane.open(scene, panes[0]?.place() ?? settings.place);
  }
  panes.forEach((pane, i) => {
    pane.title.hidden = panes.length < 2;
    pane.title.textContent = panes.length < 2 ? "" : runs[i ? /** @type {number} */ (settings.beside) : settings.run].title;
  });
}

/** @param {Pane} pane @param {number} x @param {number} y */
async function pick(pane, x, y) {
  if (!pane.scene?.layers.labels) return;
  try {
    const choice = ++choices;
    const one = await picking.choose(pane, x, y);
    if (choice === choices) await choose(pane, one);
  } catch (error) {
    tell(/** @type {Error} */ (error).message, true);
  }
}

/** @param {Pane} pane @param {import("./types.js").Picked|null} one */
async function choose(pane, one) {
  const { scene } = pane;
  const view = pane.view();
  if (!scene || !view) return;
  const choice = ++choices;
  const picked = !one || one.rings ? one : await readRegion(scene.id, /** @type {any} */ (one).index, 0.5 / view.scale);
  if (choice !== choices || pane.scene !== scene) return;
  pane.picked = picked;
  if (pane === panes[0]) corrections.showPicked();
  pane.redraw();
}

/** @param {"size"|"confidence"} order @param {number} step */
async function nextRegion(order, step) {
  const pane = panes[0];
  if (!pane?.scene?.layers.labels) return;
  rank = { order, at: rank.order === order ? rank.at + step : step > 0 ? 0 : -1 };
  const names = pane.scene.classes.map(({ name }) => name).filter((name) => !settings.hidden.has(name));
  try {
    const answer = await rankedRegion(pane.scene.id, order, rank.at, names);
    if (!answer.region) return tell("The visible classes have no regions.");
    rank.at = answer.rank;
    showBox(answer.region.box);
    await choose(pane, answer.region);
  } catch (error) {
    tell(/** @type {Error} */ (error).message, true);
  }
}

/** @param {import("./draw.js").Tool} tool */
function useTool(tool) {
  drawing.choose(tool, panes);
  hover.hide();
  for (const button of byId("tools").querySelectorAll("button[data-tool]")) {
    button.setAttribute("aria-pressed", String(/** @type {HTMLElement} */ (button).dataset.tool === tool));
  }
}

/** @param {number} x @param {number} y shares of the view */
function pan(x, y) {
  const pane = leader ?? panes[0];
  const place = pane?.place();
  const view = pane?.view();
  if (pane && place && view) pane.goTo({ ...place, x: place.x + x * view.width * place.um, y: place.y + y * view.height * place.um }, false);
}

/** @param {number} times */
function zoom(times) {
  const pane = leader ?? panes[0];
  pane?.osd.viewport?.zoomBy(times);
  pane?.osd.viewport?.applyConstraints();
}

/** @param {number} step */
function nextSlide(step) {
  const slide = list.neighbour(step);
  if (slide) show(slide);
}

/** A correction was saved, or taken back: then its place is the current one again. @param {string} id @param {boolean} exists */
async function saved(id, exists) {
  try {
    ({ runs } = await listSlides());
    list.setRun(runs[settings.run]);
    places.setRun(runs[settings.run]);
    if (!exists) await places.revisit(id);
  } catch (error) {
    tell(/** @type {Error} */ (error).message, true);
  }
}

function offerRuns() {
  /** @type {HTMLSelectElement} */
  const select = byId("compare");
  byId("beside").hidden = runs.length < 2;
  select.replaceChildren(make("option", { value: "" }, "none"), ...runs.flatMap((run, i) =>
    i === settings.run ? [] : [make("option", { value: String(i) }, run.title)]));
  select.value = settings.beside === null ? "" : String(settings.beside);
  select.addEventListener("change", () => {
    settings.beside = select.value === "" ? null : Number(select.value);
    const slide = list.slides.find(({ id }) => id === list.current);
    if (slide) showBeside(slide).then(redraw, (error) => tell(error.message, true));
  });
}

function bind() {
  for (const button of byId("tools").querySelectorAll("button[data-tool]")) {
    button.addEventListener("click", () => useTool(/** @type {any} */ (button).dataset.tool));
  }
  const snapshot = () => saveSnapshot(panes, settings.slide).catch((error) => tell(error.message, true));
  const help = () => /** @type {HTMLDialogElement} */ (byId("keys")).showModal();
  byId("snapshot").addEventListener("click", snapshot);
  byId("help").addEventListener("click", help);
  window.addEventListener("hashchange", () => location.reload());
  const digits = Array.from({ length: 9 }, (_, i) => ({
    keys: [String(i + 1)], text: i ? "" : "Show or hide a class; label the place with it", shown: "1 – 9", once: true,
    act: () => {
      const shown = panes[0]?.scene?.classes[i];
      if (places.takesDigits) places.label(corrections.classes.names[i]);
      else if (shown) layers.toggleClass(shown.name);
    },
  }));
  bindKeys([
    { keys: ["+", "="], text: "Zoom in", act: () => zoom(1.5) },
    { keys: ["-"], text: "Zoom out", act: () => zoom(1 / 1.5) },
    { keys: ["0", "Home"], text: "The whole slide", act: () => (leader ?? panes[0])?.osd.viewport?.goHome() },
    { keys: ["ArrowLeft"], shown: "← → ↑ ↓", text: "Move", act: () => pan(-0.2, 0) },
    { keys: ["ArrowRight"], text: "", act: () => pan(0.2, 0) },
    { keys: ["ArrowUp"], text: "", act: () => pan(0, -0.2) },
    { keys: ["ArrowDown"], text: "", act: () => pan(0, 0.2) },
    { keys: ["]", "PageDown"], text: "Next slide", act: () => nextSlide(1) },
    { keys: ["[", "PageUp"], text: "Previous slide", act: () => nextSlide(-1) },
    { keys: ["n"], shown: "N", text: "Next region by size", act: () => nextRegion("size", 1) },
    { keys: ["b"], shown: "B", text: "Previous region by size", act: () => nextRegion("size", -1) },
    { keys: ["l"], shown: "L", text: "Next region by lowest confidence (specks last)", act: () => nextRegion("confidence", 1) },
    { keys: ["k"], shown: "K", text: "Previous region by lowest confidence", act: () => nextRegion("confidence", -1) },
    { keys: ["f"], shown: "F", text: "Next place to label", act: () => places.go(1) },
    { keys: ["d"], shown: "D", text: "Previous place to label", act: () => places.go(-1) },
    { keys: [" "], shown: "Space", text: "Show or hide the map", act: () => layers.toggle("map") },
    { keys: ["h"], shown: "H", text: "Show or hide scores", act: () => layers.toggle("heat") },
    { keys: ["o"], shown: "O", text: "Show or hide outlines", act: () => layers.toggle("outlines") },
    ...digits,
    { keys: ["p"], shown: "P", text: "Draw a polygon", act: () => useTool("polygon") },
    { keys: ["r"], shown: "R", text: "Draw a rectangle", act: () => useTool("rectangle") },
    { keys: ["Enter"], text: "Close the polygon", act: () => drawing.finish() },
    { keys: ["Escape"], shown: "Esc", text: "Stop drawing, clear the selection, leave the place", act: () => {
      if (places.ended || (drawing.tool === "pan" && !panes[0]?.picked)) places.leave();
      useTool("pan");
      if (panes[0]) choose(panes[0], null);
    } },
    { keys: ["Delete", "Backspace"], shown: "Del", text: "Delete the selected region or area", act: () => corrections.delete() },
    { keys: ["Ctrl+z"], shown: "Ctrl+Z", text: "Undo the last correction", act: () => corrections.undoButton.click() },
    { keys: ["s"], shown: "S", text: "Snapshot", act: snapshot },
    { keys: ["?"], text: "", act: help },
  ], () => panes[0]?.osd.canvas.focus({ preventScroll: true }));
}

async function start() {
  readAddress();
  layers.show();
  bind();
  ({ runs } = await listSlides());
  settings.run = Math.min(settings.run, runs.length - 1);
  if (settings.beside === null && runs.length === 2 && !location.hash) settings.beside = 1 - settings.run;
  if (settings.beside !== null && !(settings.beside in runs)) settings.beside = null;
  list.setRun(runs[settings.run]);
  places.setRun(runs[settings.run]);
  offerRuns();
  const wanted = list.slides.find(({ name, viewable }) => name === settings.slide && viewable);
  const missing = wanted ? "" : settings.slide;
  const slide = wanted ?? list.listed().find(({ viewable }) => viewable);
  if (slide) await show(slide, Boolean(wanted));
  if (missing) tell(`There is no map of ${missing} here.`, true);
}

start().catch((error) => tell(error.message, true));
