// @ts-check
/** Set up the page: open slides in panes, and connect the modules. */
import { countRegions, isOutdated, listSlides, openSlide, rankedRegion, readRegion, whenOutdated } from "./api.js";
import { Corrections } from "./corrections.js";
import { byId, make } from "./dom.js";
import "./drawers.js";
import { Drawing } from "./draw.js";
import { Earlier } from "./earlier.js";
import { Hover } from "./hover.js";
import { bindKeys } from "./keys.js";
import { Layers } from "./layers.js";
import { offerLearning } from "./learning.js";
import { add, mention, note, tell } from "./notice.js";
import { Pane } from "./pane.js";
import { showFacts } from "./picked.js";
import { isEarlier, Picking } from "./picking.js";
import { Places } from "./places.js";
import { enterAddress, readAddress, settings, writeAddress } from "./settings.js";
import { SlideList } from "./slides.js";
import { saveSnapshot } from "./snapshot.js";

/** @typedef {import("./types.js").Slide} Slide */
/** @typedef {import("./types.js").Scene} Scene */

const LOOK_AGAIN_MS = 5000; // whether a map is finished

/** @type {import("./types.js").Run[]} */
let runs = [];
/** @type {Pane[]} corrections apply to the first */
const panes = [];
/** @type {Pane|null} the pane that the others follow */
let leader = null;
let rank = { order: "", at: 0 };
let choices = 0; // of what is selected: an earlier one that is answered later does not count

const hover = new Hover();
const layers = new Layers(() => switched());
const picking = new Picking();
const list = new SlideList((slide) => show(slide));
const corrections = new Corrections({ tell, saved, shown, open: showById, select: (one) => choose(panes[0], one) });
const earlier = new Earlier(corrections, (one) => choose(panes[0], one));
const places = new Places(corrections, showById, showBox, tell);
const drawing = new Drawing(async (pane, points) => {
  const own = pane === panes[0];
  if (!own) tell("Only the map on the left can be corrected: draw there.");
  const done = !own || Boolean(await corrections.draw(points));
  if (!done) add("The drawing stays: Enter saves it again, Esc removes it.");
  return done;
});

/** Say what failed; that a map is outdated needs no words, as it is shown anew. @param {any} error */
function report(error) {
  if (!isOutdated(error)) tell(error.message, true);
}

function redraw() {
  for (const pane of panes) pane.redraw();
  writeAddress();
}

/** A layer or a class was shown or hidden; what is hidden is not selected. */
function switched() {
  const picked = panes[0]?.picked;
  if (picked && isEarlier(picked) && !settings.earlier) choose(panes[0], null);
  redraw();
}

/** The list of corrections was shown anew. */
function shown() {
  places.show();
  earlier.show();
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

/** @param {Slide} slide @param {boolean} [stay] at the position and in the entry of the address */
async function show(slide, stay = false) {
  const place = stay ? settings.place : null;
  if (!stay && slide.name !== settings.slide) {
    settings.place = panes[0]?.place() ?? settings.place; // it may have moved since it was last drawn
    enterAddress(() => Object.assign(settings, { slide: slide.name, place }));
  }
  settings.slide = slide.name;
  if (!stay) tell("");
  list.mark(slide.id);
  Object.assign(byId("slide-name"), { textContent: slide.name, title: slide.name });
  try {
    const scene = await openSlide(slide.id);
    if (settings.slide !== slide.name) return;
    note(noteOf(scene, slide));
    list.setColors(scene.classes);
    layers.setScene(scene);
    const pane = panes[0] ?? addPane();
    leader = pane;
    rank = { order: "", at: 0 };
    settings.place = place;
    openIn(pane, scene, place);
    corrections.show();
    await Promise.all([showBeside(slide), corrections.open(pane), earlier.open(pane), places.follow(pane, !stay), count(scene)]);
    const lost = pane.corrections.filter((one) => one.earlier).length;
    if (lost) mention(`${lost} of the corrections ${lost === 1 ? "is of a region" : "are of regions"} of an earlier map: see the list.`);
  } catch (error) {
    report(error);
  }
  writeAddress();
}

/** @param {Scene} scene @param {Slide} slide */
function noteOf(scene, slide) {
  const unfinished = !scene.layers.labels && slide.status !== "no tissue";
  return [
    scene.note && `This slide ${scene.note}.`,
    scene.missing && `Shown from the run's own copy: ${scene.missing}.`,
    unfinished && "Its map is not finished: it is being made, or its run has stopped. It is shown once it is complete.",
  ].filter(Boolean).join(" ");
}

/** Open a slide in a pane, again as soon as its map is finished. @param {Pane} pane @param {Scene} scene @param {import("./types.js").Place|null} place */
function openIn(pane, scene, place) {
  pane.open(scene, place);
  if (!scene.layers.labels) window.setTimeout(() => lookAgain(pane, scene), LOOK_AGAIN_MS);
}

/** @param {Pane} pane @param {Scene} scene */
async function lookAgain(pane, scene) {
  if (pane.scene !== scene) return;
  const now = await openSlide(scene.id).catch(() => scene); // the next look may reach the server
  if (pane.scene !== scene) return;
  if (now.version !== scene.version) await renew(scene.id);
  else window.setTimeout(() => lookAgain(pane, scene), LOOK_AGAIN_MS);
}

/** The map of a slide was made again: show it anew, where the view is. @param {string} id */
async function renew(id) {
  const slide = list.slides.find((one) => one.id === list.current);
  const pane = panes.find(({ scene }) => scene?.id === id);
  if (!slide || !pane) return;
  mention("The map was made again: it is shown anew.");
  try {
    await refresh();
    await show(slide, true);
    if (!pane.scene?.layers.labels) mention("The map is being made again.");
  } catch (error) {
    report(error);
  }
}

/** Open the slide and the view of the address that the browser went to. */
async function followAddress() {
  readAddress();
  layers.show();
  useRuns();
  const slide = list.slides.find(({ name, viewable }) => name === settings.slide && viewable);
  if (slide) await show(slide, true);
  else tell(`There is no map of ${settings.slide} here.`, true);
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
    openIn(pane, scene, panes[0]?.place() ?? settings.place);
  }
  panes.forEach((pane, i) => {
    pane.title.hidden = panes.length < 2;
    pane.title.textContent = panes.length < 2 ? "" : runs[i ? /** @type {number} */ (settings.beside) : settings.run].title;
  });
  byId("legend-run").textContent = panes.length < 2 ? "" : `Areas are those of ${runs[settings.run].title}, on the left.`;
}

/** @param {Pane} pane @param {number} x @param {number} y */
async function pick(pane, x, y) {
  if (!pane.scene?.layers.labels) return;
  try {
    const choice = ++choices;
    const one = await picking.choose(pane, x, y);
    if (choice === choices) await choose(pane, one);
  } catch (error) {
    report(error);
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
  for (const other of panes) other.picked = other === pane ? picked : null; // one is selected of all
  corrections.showPicked();
  if (pane !== panes[0] && picked) showFacts(/** @type {any} */ (picked), pane.title.textContent ?? "");
  for (const other of panes) other.redraw();
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
    report(error);
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

/** Something was saved; if it took back a label, its place is the current one again. @param {string[]} gone ids of corrections */
async function saved(gone) {
  try {
    await refresh();
    for (const id of gone) await places.revisit(id);
  } catch (error) {
    report(error);
  }
}

/** Read the lists again, as they have changed. */
async function refresh() {
  ({ runs } = await listSlides());
  showRun();
}

function showRun() {
  const run = runs[settings.run];
  list.setRun(run);
  places.setRun(run);
  offerLearning(run);
}

/** Show the run of the address, and offer the others to compare with. */
function useRuns() {
  settings.run = Math.min(settings.run, runs.length - 1);
  if (settings.beside !== null && !(settings.beside in runs)) settings.beside = null;
  showRun();
  offerRuns();
}

function offerRuns() {
  /** @type {HTMLSelectElement} */
  const select = byId("compare");
  byId("beside").hidden = runs.length < 2;
  select.replaceChildren(make("option", { value: "" }, "none"), ...runs.flatMap((run, i) =>
    i === settings.run ? [] : [make("option", { value: String(i) }, run.title)]));
  select.value = settings.beside === null ? "" : String(settings.beside);
}

/** @param {string} chosen number of a run; empty for none */
function compareWith(chosen) {
  settings.beside = chosen === "" ? null : Number(chosen);
  const slide = list.slides.find(({ id }) => id === list.current);
  if (slide) showBeside(slide).then(redraw, report);
}

function bind() {
  for (const button of byId("tools").querySelectorAll("button[data-tool]")) {
    button.addEventListener("click", () => useTool(/** @type {any} */ (button).dataset.tool));
  }
  const snapshot = () => saveSnapshot(panes, settings.slide).catch(report);
  const help = () => /** @type {HTMLDialogElement} */ (byId("keys")).showModal();
  byId("snapshot").addEventListener("click", snapshot);
  byId("help").addEventListener("click", help);
  byId("compare").addEventListener("change", (event) => compareWith(/** @type {HTMLSelectElement} */ (event.target).value));
  window.addEventListener("popstate", () => followAddress());
  whenOutdated(renew);
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
    { keys: ["e"], shown: "E", text: "Show or hide corrections of the earlier map", act: () => layers.toggle("earlier") },
    { keys: ["c"], shown: "C", text: "Keep the selected one of these", act: () => corrections.keepPicked() },
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
  if (settings.beside === null && runs.length === 2 && !location.hash) settings.beside = 1 - settings.run;
  useRuns();
  const wanted = list.slides.find(({ name, viewable }) => name === settings.slide && viewable);
  const missing = wanted ? "" : settings.slide;
  const slide = wanted ?? list.listed().find(({ viewable }) => viewable);
  if (!wanted) settings.place = null;
  if (slide) await show(slide, true);
  if (missing) tell(`There is no map of ${missing} here.`, true);
}

start().catch(report);
